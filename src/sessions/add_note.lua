-- Adds a note, unless there is one of this id: then nil. Else how many sessions its subject has by now.
-- KEYS: note, the subject's sessions, all expiries.
-- ARGV: note, its life in seconds, id, opened at, the longest life in seconds, expires at.
if not redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX') then
  return false
end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
-- Others of the subject's may end later than this one; none after the longest life.
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[3])
return redis.call('ZCARD', KEYS[2])
