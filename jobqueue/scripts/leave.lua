-- A worker that stops in order: what it has not run goes back without counting a delivery, and it is forgotten.
--
-- KEYS  1 hi stream  2 lo stream  3 workers  4 loading
-- ARGV  1 consumer
-- Returns how many jobs went back.

local GROUP, ORPHANS, AT_ONCE = 'workers', 'orphans', 500
local num_returned = 0

-- First, so that it works on a full server, where a script may use memory only after a write that uses none.
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])

for _, stream in ipairs({KEYS[1], KEYS[2]}) do
  local pending
  repeat
    pending = redis.call('XPENDING', stream, GROUP, '-', '+', AT_ONCE, ARGV[1])
    for _, entry in ipairs(pending) do
      redis.call('XCLAIM', stream, GROUP, ORPHANS, 0, entry[1], 'RETRYCOUNT', math.max(entry[4] - 1, 0), 'JUSTID')
      num_returned = num_returned + 1
    end
  until #pending < AT_ONCE
  redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, ARGV[1])
end
return num_returned
