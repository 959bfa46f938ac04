-- Charge calls to their tenant's quota, each in full or not at all, and forget those that are over.
--
-- What is spent of a limit per second is paid off at that rate. A call is let in while a whole request, and a whole
-- token, are left of a second's worth, which is at least one; then it is charged in full. So a large call is never
-- refused for ever: it leaves a debt, for which all others wait, however small they are. A call in flight counts until
-- it is over, at the latest at its deadline: a gateway that dies holds nothing for longer.
--
-- KEYS  1 spent  2 in flight
-- ARGV  1 requests per second  2 tokens per second  3 most calls in flight, each empty where there is no such limit
--       then per call: its id, ms until its deadline or 0 where it is over, its tokens, 0 where it needs none; of one
--       that is over those that are given back, with its request, since nothing was done for it
-- Returns per call {0, 0}, or {which limit it meets: 1 requests, 2 tokens, 3 in flight, ms until it is worth another
--         try}, 0 where nobody knows.

local SPENT, IN_FLIGHT = KEYS[1], KEYS[2]
local LET_IN, REQUESTS, TOKENS, TOO_MANY = 0, 1, 2, 3
local FIRST_CALL, CALL_FIELDS = 4, 3
local PER_SECOND = {[REQUESTS] = tonumber(ARGV[1]), [TOKENS] = tonumber(ARGV[2])}
local max_in_flight = tonumber(ARGV[3])

local now_us = server_time_us()
local now_ms = math.floor(now_us / 1000)
redis.call('ZREMRANGEBYSCORE', IN_FLIGHT, '-inf', now_ms)  -- uses no memory: works on a full server
local num_in_flight = redis.call('ZCARD', IN_FLIGHT)

local found = redis.call('HMGET', SPENT, 'at_us', 'requests', 'tokens')
local at_us = tonumber(found[1] or now_us)
local paid_s = math.max(now_us - at_us, 0) / 1e6
local has_changed = at_us > now_us  -- a server that took over may have a clock that is behind
local spent = {[REQUESTS] = tonumber(found[2] or 0), [TOKENS] = tonumber(found[3] or 0)}
for unit in pairs(spent) do
  spent[unit] = PER_SECOND[unit] and math.max(spent[unit] - paid_s * PER_SECOND[unit], 0) or 0
end

-- Of the limits that a call meets the one that is the last to go.
local function refusal(cost)
  local met, wait_s = LET_IN, 0
  for unit, per_second in pairs(PER_SECOND) do
    local unit_wait_s = (spent[unit] + 1 - math.max(per_second, 1)) / per_second
    if cost[unit] > 0 and unit_wait_s > wait_s then
      met, wait_s = unit, unit_wait_s
    end
  end
  if met == LET_IN and max_in_flight and num_in_flight >= max_in_flight then
    return TOO_MANY, 0
  end
  return met, math.ceil(wait_s * 1000)
end

local function charge(id, ttl_ms, cost)
  has_changed = true
  for unit in pairs(PER_SECOND) do
    spent[unit] = spent[unit] + cost[unit]
  end
  if max_in_flight then
    redis.call('ZADD', IN_FLIGHT, now_ms + ttl_ms, id)
    num_in_flight = num_in_flight + 1
  end
end

local function give_back(cost)
  has_changed = true
  for unit in pairs(PER_SECOND) do
    spent[unit] = math.max(spent[unit] - cost[unit], 0)
  end
end

local function spend(id, ttl_ms, tokens)
  local cost = {[REQUESTS] = 1, [TOKENS] = tokens}
  if ttl_ms == 0 then
    num_in_flight = num_in_flight - redis.call('ZREM', IN_FLIGHT, id)
    if tokens > 0 then
      give_back(cost)
    end
    return {LET_IN, 0}
  end
  local met, wait_ms = refusal(cost)
  if met == LET_IN then
    charge(id, ttl_ms, cost)
  end
  return {met, wait_ms}
end

local replies = {}
for i = FIRST_CALL, #ARGV, CALL_FIELDS do
  replies[#replies + 1] = spend(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
end

local function keep_spent()
  local lifetime_s = 0
  for unit, per_second in pairs(PER_SECOND) do
    lifetime_s = math.max(lifetime_s, spent[unit] / per_second)
  end
  if lifetime_s > 0 then
    redis.call('HSET', SPENT, 'at_us', now_us, 'requests', spent[REQUESTS], 'tokens', spent[TOKENS])
    redis.call('PEXPIRE', SPENT, math.ceil(lifetime_s * 1000))
  else
    redis.call('DEL', SPENT)
  end
end

local function keep_in_flight()
  local last = redis.call('ZRANGE', IN_FLIGHT, -1, -1, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', IN_FLIGHT, last[2])
  end
end

if has_changed then
  keep_spent()
  keep_in_flight()
end
return replies
