-- A worker that stops in order: what it has not run goes back without counting a delivery, and it is forgotten.
--
-- ARGV  1 consumer
-- Returns how many jobs went back.

local consumer, num_returned = ARGV[1], 0

redis.call('ZREM', WORKERS, consumer)  -- uses no memory: works on a full server
redis.call('ZREM', LOADING, consumer)
redis.call('HDEL', RATES, consumer)
add_up_rates()

for _, stream in pairs(STREAMS) do
  local pending
  repeat
    pending = redis.call('XPENDING', stream, GROUP, '-', '+', AT_ONCE, consumer)
    for _, entry in ipairs(pending) do
      redis.call('XCLAIM', stream, GROUP, ORPHANS, 0, entry[1], 'RETRYCOUNT', math.max(entry[4] - 1, 0), 'JUSTID')
      num_returned = num_returned + 1
    end
  until #pending < AT_ONCE
  redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, consumer)
end
return num_returned
