-- Forget what nobody has announced for too long, whatever version it is in, and list the rest.
--
-- KEYS  1 models
-- ARGV  1 lifetime, ms
-- Returns queue, stamps and announcement; queue, ...

local now_ms = server_time_ms()
local found = redis.call('HGETALL', KEYS[1])
local kept = {}
for index = 1, #found, 2 do
  local queue, value = found[index], found[index + 1]
  local last_ms = tonumber(string.match(value, '^%d+ (%d+) '))
  if not last_ms then
    -- Somebody else's: stamped from now on, so that it is forgotten too.
    last_ms = now_ms
    value = string.format('%.0f %.0f %s', now_ms, now_ms, value)
    redis.call('HDEL', KEYS[1], queue)
    redis.call('HSET', KEYS[1], queue, value)
  end
  if last_ms < now_ms - tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], queue)
  else
    kept[#kept + 1] = queue
    kept[#kept + 1] = value
  end
end
return kept
