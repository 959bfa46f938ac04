-- Note what is served, behind two stamps that every version reads: when it was first said and when last, server ms.
--
-- KEYS  1 models
-- ARGV  1 queue  2 announcement

local now_ms = string.format('%.0f', server_time_ms())
local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local first_ms = string.match(before, '^(%d+) %d+ ') or now_ms
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], first_ms .. ' ' .. now_ms .. ' ' .. ARGV[2])
