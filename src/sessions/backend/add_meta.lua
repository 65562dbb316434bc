-- Adds a note, unless there is one of this id (then nil) or there are too many logins: then {seconds to
-- wait}. Else how many sessions its subject has by now.
-- KEYS: note, the subject's sessions, all expiries, the subject's logins, its address' failures.
-- ARGV: note, its life in seconds, id, opened at, the longest life in seconds, expires at, most logins (0: any
-- number), their window in seconds, most failures (0: any number).
local failures = tonumber(ARGV[9])
if failures > 0 and tonumber(redis.call('GET', KEYS[5]) or 0) >= failures then
  return {math.max(math.ceil(redis.call('PTTL', KEYS[5]) / 1000), 1)}
end
local logins = tonumber(ARGV[7])
if logins > 0 then
  local count = redis.call('INCR', KEYS[4])
  if count == 1 then
    redis.call('EXPIRE', KEYS[4], ARGV[8])
  end
  if count > logins then
    return {math.max(math.ceil(redis.call('PTTL', KEYS[4]) / 1000), 1)}
  end
end
if not redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX') then
  return false
end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
-- Others of the subject's may end later than this one; none after the longest life.
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[3])
return redis.call('ZCARD', KEYS[2])
