-- A worker that stops in order: what it has not run goes back without counting a delivery, and it is forgotten.
--
-- ARGV  1 consumer
-- Returns how many jobs went back.

local consumer = ARGV[1]

redis.call('ZREM', WORKERS, consumer)  -- uses no memory: works on a full server
redis.call('ZREM', LOADING, consumer)
redis.call('HDEL', RATES, consumer)
add_up_rates()

local num_returned = give_back(consumer, 1)
for _, stream in pairs(STREAMS) do
  redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, consumer)
end
return num_returned
