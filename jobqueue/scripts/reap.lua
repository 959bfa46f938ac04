-- Hand what workers without a live lease left behind to the orphans, deliveries counted as they are; and mend what a
-- server that lost the last of its writes may have wrong: expired entries that nobody holds, among the oldest, and the
-- depth of a lane that is empty.
--
-- Returns how many consumers were removed.

local OLDEST = 100  -- entries looked at
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

-- Workers end what they hold, and takes what is left of the dead, which may have failed them.
local function is_held(stream, id)
  return #redis.call('XPENDING', stream, GROUP, id, id, 1) > 0
end

local function drop_expired(lane, stream)
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', OLDEST)) do
    local fields = fields_of(entry)
    if is_expired(entry[1], fields, now_ms) and not is_held(stream, entry[1]) then
      end_job(lane, entry[1], fields.tokens, fields.tenant)
    end
  end
end

local function mend_depth(lane, stream)
  if redis.call('XLEN', stream) > 0 then
    return
  end
  redis.call('HDEL', DEPTH, lane .. '_tokens', lane .. '_jobs')
  for _, field in ipairs(redis.call('HKEYS', TENANTS)) do
    if string.sub(field, 1, #lane + 1) == lane .. ':' then
      redis.call('HDEL', TENANTS, field)
    end
  end
end

for lane, stream in pairs(STREAMS) do
  drop_expired(lane, stream)
  mend_depth(lane, stream)
end

for _, consumer in ipairs(redis.call('HKEYS', RATES)) do
  if is_dead(consumer) then
    redis.call('HDEL', RATES, consumer)
  end
end
add_up_rates()
return num_removed
