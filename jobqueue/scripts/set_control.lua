-- What an operator decides: a field of the control hash is set.
--
-- ARGV  1 field

redis.call('HDEL', CONTROL, ARGV[1])  -- uses no memory: a full server can be paused and drained
redis.call('HSET', CONTROL, ARGV[1], '1')
