-- Put in front of every script. Those of a queue take the same keys, so that a cluster checks, before anything is
-- written, that every one of them is on this server (`announce`, `models`, `spend` and `cache` have keys of their own,
-- and use only what needs none):
--
-- KEYS  1 hi stream  2 lo stream  3 depth  4 tenants  5 control  6 rates  7 workers  8 loading  9 dead letters
--       10 the gateway's reply stream, where the script has one
--
-- Where memory is full, a script may use some only after a write that uses none. Those that must work then, so that a
-- full server drains, begin with such a write.

local DEPTH, TENANTS, CONTROL, RATES, WORKERS, LOADING, DEAD, REPLIES = unpack(KEYS, 3, 10)
local STREAMS = {hi = KEYS[1], lo = KEYS[2]}
local GROUP, ORPHANS, AT_ONCE = 'workers', 'orphans', 500

local function server_time_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function server_time_ms()
  return math.floor(server_time_us() / 1000)
end

local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  return fields
end

local function is_expired(id, fields, now_ms)
  return tonumber(string.match(id, '^%d+')) + tonumber(fields.ttl_ms) <= now_ms
end

-- Whoever deletes the entry ends the job, and alone lowers the depth. Returns whether it was this call.
local function end_job(lane, id, tokens, tenant)
  redis.call('XACK', STREAMS[lane], GROUP, id)
  if redis.call('XDEL', STREAMS[lane], id) == 0 then
    return false
  end
  redis.call('HINCRBY', DEPTH, lane .. '_tokens', -tonumber(tokens))
  redis.call('HINCRBY', DEPTH, lane .. '_jobs', -1)
  if tenant ~= '' then
    local field = lane .. ':' .. tenant
    if redis.call('HINCRBY', TENANTS, field, -tonumber(tokens)) <= 0 then
      redis.call('HDEL', TENANTS, field)
    end
  end
  return true
end

-- What a consumer holds waits for another one, deliveries less `uncounted`. Returns how many jobs.
local function give_back(consumer, uncounted)
  local num_returned = 0
  for _, stream in pairs(STREAMS) do
    local pending
    repeat
      pending = redis.call('XPENDING', stream, GROUP, '-', '+', AT_ONCE, consumer)
      for _, entry in ipairs(pending) do
        local deliveries = math.max(entry[4] - uncounted, 0)
        redis.call('XCLAIM', stream, GROUP, ORPHANS, 0, entry[1], 'RETRYCOUNT', deliveries, 'JUSTID')
        num_returned = num_returned + 1
      end
    until #pending < AT_ONCE
  end
  return num_returned
end

local function renew_lease(leases, consumer, lease_ms, now_ms)
  redis.call('ZREM', leases, consumer)
  redis.call('ZADD', leases, now_ms + tonumber(lease_ms), consumer)
end

-- What live workers end per second together: admission reads it at every call, so it is added up here.
local function add_up_rates()
  local total = 0
  for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '(' .. server_time_ms(), '+inf')) do
    total = total + tonumber(redis.call('HGET', RATES, consumer) or 0)
  end
  redis.call('HSET', CONTROL, 'tokens_per_s', total)
end

-- Also made where work is admitted: a worker that comes to a full server could not make them any more.
local function make_groups()
  for _, stream in pairs(STREAMS) do
    if redis.call('EXISTS', stream) == 0 then
      redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    end
  end
end

-- Workers drop jobs whose gateway has no reply stream, so it must exist while the gateway lives.
local function keep_replies_open(lifetime_s)
  if redis.call('EXISTS', REPLIES) == 0 then
    redis.call('XDEL', REPLIES, redis.call('XADD', REPLIES, '*', 'open', ''))
  end
  redis.call('EXPIRE', REPLIES, lifetime_s)
end
