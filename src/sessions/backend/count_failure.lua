-- Counts a failed login. Returns the seconds to wait when it exceeds the limit, else 0.
-- KEYS: the address' failures. ARGV: maximum, window in seconds.
local count = redis.call('INCR', KEYS[1])
if count == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
if count > tonumber(ARGV[1]) then
  return math.max(math.ceil(redis.call('PTTL', KEYS[1]) / 1000), 1)
end
return 0
