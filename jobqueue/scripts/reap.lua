-- Hand what workers without a live lease left behind to the orphans, deliveries counted as they are.
--
-- KEYS  1 hi stream  2 lo stream  3 workers  4 loading
-- Returns how many consumers were removed.

local GROUP, ORPHANS, AT_ONCE = 'workers', 'orphans', 500
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local num_removed = 0

-- First, so that it works on a full server, where a script may use memory only after a write that uses none.
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now_ms)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now_ms)

local function is_dead(consumer)
  return consumer ~= ORPHANS and not redis.call('ZSCORE', KEYS[3], consumer)
end

local function reap(stream, consumer)
  local ids = {}
  for _, pending in ipairs(redis.call('XPENDING', stream, GROUP, '-', '+', AT_ONCE, consumer)) do
    ids[#ids + 1] = pending[1]
  end
  if #ids > 0 then
    local claim = {'XCLAIM', stream, GROUP, ORPHANS, 0, unpack(ids)}
    claim[#claim + 1] = 'JUSTID'
    redis.call(unpack(claim))
  end
  -- A consumer that still has entries is kept: deleting it would forget them.
  if #ids < AT_ONCE then
    redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, consumer)
    num_removed = num_removed + 1
  end
end

for _, stream in ipairs({KEYS[1], KEYS[2]}) do
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, GROUP)) do
    if is_dead(info[2]) then
      reap(stream, info[2])
    end
  end
end
return num_removed
