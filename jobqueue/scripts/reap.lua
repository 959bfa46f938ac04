-- Hand what workers without a live lease left behind to the orphans, deliveries counted as they are.
--
-- Returns how many consumers were removed.

local now_ms, num_removed = server_time_ms(), 0

redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now_ms)  -- uses no memory: works on a full server
redis.call('ZREMRANGEBYSCORE', LOADING, '-inf', now_ms)

local function is_dead(consumer)
  return consumer ~= ORPHANS and not redis.call('ZSCORE', WORKERS, consumer)
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

for _, stream in pairs(STREAMS) do
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, GROUP)) do
    if is_dead(info[2]) then
      reap(stream, info[2])
    end
  end
end

for _, consumer in ipairs(redis.call('HKEYS', RATES)) do
  if is_dead(consumer) then
    redis.call('HDEL', RATES, consumer)
  end
end
add_up_rates()
return num_removed
