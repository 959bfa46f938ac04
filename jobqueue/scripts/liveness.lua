-- Whether the queue has workers, by the clock of the server that their leases are on.
--
-- Returns 2 live, 1 loading, 0 none

local after_now = '(' .. string.format('%.0f', server_time_ms())
if redis.call('ZCOUNT', WORKERS, after_now, '+inf') > 0 then
  return 2
end
return redis.call('ZCOUNT', LOADING, after_now, '+inf') > 0 and 1 or 0
