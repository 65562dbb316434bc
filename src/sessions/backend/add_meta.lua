-- Adds metadata of a session. Returns nil if the id has metadata already, {seconds to wait} if a limit is
-- reached, else the number of the subject's sessions.
-- KEYS: metadata, the subject's sessions, all expiries, the subject's logins, the address' failures.
-- ARGV: metadata, its TTL in seconds, id, opening time, maximum life in seconds, expiry, maximum of logins (0: no
-- limit), their window in seconds, maximum of failures (0: no limit).
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
-- Other sessions of the subject may expire later than this one; none later than the maximum life.
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[3])
return redis.call('ZCARD', KEYS[2])
