-- Renew a lease.
--
-- KEYS  1 workers, or loading
-- ARGV  1 consumer  2 lease, ms

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Removed first, so that a full server drains: where memory is full, a script may use some only after a write that
-- uses none.
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[2]), ARGV[1])
