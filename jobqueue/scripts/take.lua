-- Give a worker the jobs of its next batch.
--
-- Orphans of dead workers come first, then the lanes in the asked order, each first in first out, until the budget
-- is full. What has expired, or whose gateway is gone, is dropped on the way. A job that already cost a worker its
-- life is a suspect: it runs alone, in a worker that holds nothing else, so that it takes no innocent job with it.
--
-- ARGV  1 consumer  2 lease, ms  3 budget, cost  4 most jobs  5 the lane to begin with
--       6 batches the worker holds already  7 jobs already taken for this batch
--       8 the start of reply streams' keys  9 answer to a poisoned job
--       10 most deliveries  11 dead letters' lifetime, s  12 most dead letters  13 1 to keep payloads in dead letters
-- Returns {server time us, why there is no more, job...}, a job being {lane, entry id, deliveries, fields}; the reason
--         is 1 where suspects wait for an idle worker, 2 where an operator has paused the queue, else 0.

local PEEK, MOST_DROPPED = 16, 1000
local SUSPECTS_WAIT, PAUSED = 1, 2
local consumer, budget, max_jobs = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local num_held, num_taken_before = tonumber(ARGV[6]), tonumber(ARGV[7])
local replies_prefix, poison_answer, max_deliveries = ARGV[8], ARGV[9], tonumber(ARGV[10])
local lanes = ARGV[5] == 'lo' and {'lo', 'hi'} or {'hi', 'lo'}

local now_us = server_time_us()
local now_ms = math.floor(now_us / 1000)
renew_lease(WORKERS, consumer, ARGV[2], now_ms)  -- begins with a write that uses no memory
if redis.call('HGET', CONTROL, 'paused') then
  return {now_us, PAUSED}
end

local taken, cost, num_dropped, reason = {}, 0, 0, 0

local function abandoned(fields)
  return redis.call('EXISTS', replies_prefix .. fields.gateway) == 0
end

local function is_idle()
  return num_held + num_taken_before + #taken == 0
end

local function fits(fields)
  if num_taken_before + #taken == 0 then
    return true
  end
  return num_taken_before + #taken < max_jobs and cost + tonumber(fields.cost) <= budget
end

local function drop(lane, id, fields)
  end_job(lane, id, fields.tokens, fields.tenant)
end

local function bury(lane, id, fields, deliveries, why)
  redis.call('XADD', replies_prefix .. fields.gateway, 'NOMKSTREAM', '*', fields.job_id, poison_answer)
  local letter = {'reason', why, 'lane', lane, 'entry_id', id, 'deliveries', deliveries, 'request_id',
    fields.request_id, 'tenant', fields.tenant, 'tokens', fields.tokens, 'cost', fields.cost}
  if ARGV[13] == '1' then
    letter[#letter + 1] = 'payload'
    letter[#letter + 1] = fields.payload
  end
  redis.call('XADD', DEAD, 'MAXLEN', '~', ARGV[12], '*', unpack(letter))
  redis.call('EXPIRE', DEAD, ARGV[11])
  drop(lane, id, fields)
end

local function hold(lane, entry, fields, deliveries)
  taken[#taken + 1] = {lane, entry[1], deliveries, entry[2]}
  cost = cost + tonumber(fields.cost)
end

-- Returns whether the batch is closed.
local function take_orphan(lane, id, deliveries)
  local entry = redis.call('XRANGE', STREAMS[lane], id, id)[1]
  if not entry then
    redis.call('XACK', STREAMS[lane], GROUP, id)
    return false
  end
  local fields = fields_of(entry)
  if deliveries >= (fields.alone and 1 or max_deliveries) then
    bury(lane, id, fields, deliveries, 'failed its worker, deliveries: ' .. deliveries)
    return false
  elseif is_expired(id, fields, now_ms) and deliveries > 0 then
    bury(lane, id, fields, deliveries, 'expired after it failed its worker')
    return false
  elseif is_expired(id, fields, now_ms) or abandoned(fields) then
    drop(lane, id, fields)
    return false
  end
  local suspect = deliveries > 0 or fields.alone
  if suspect and not is_idle() then
    reason = SUSPECTS_WAIT
    return true
  elseif not fits(fields) then
    return true
  end
  redis.call('XCLAIM', STREAMS[lane], GROUP, consumer, 0, id, 'RETRYCOUNT', deliveries + 1, 'JUSTID')
  hold(lane, entry, fields, deliveries + 1)
  return suspect
end

local function take_orphans(lane)
  for _, pending in ipairs(redis.call('XPENDING', STREAMS[lane], GROUP, '-', '+', 100, ORPHANS)) do
    if take_orphan(lane, pending[1], pending[4]) then
      return true
    end
  end
  return false
end

local function last_delivered(stream)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for i = 1, #group, 2 do
      info[group[i]] = group[i + 1]
    end
    if info.name == GROUP then
      return info['last-delivered-id']
    end
  end
  error('NOGROUP ' .. stream)
end

-- Looks before it reads, so that nothing is delivered that does not fit. Returns whether the batch is closed.
local function take_fresh(lane)
  local after, full, closed, num_fresh = last_delivered(STREAMS[lane]), false, false, 0
  while not full do
    local entries = redis.call('XRANGE', STREAMS[lane], '(' .. after, '+', 'COUNT', PEEK)
    for _, entry in ipairs(entries) do
      local fields = fields_of(entry)
      if is_expired(entry[1], fields, now_ms) or abandoned(fields) then
        drop(lane, entry[1], fields)
        num_dropped = num_dropped + 1
      elseif fields.alone and not is_idle() then
        full, closed, reason = true, true, SUSPECTS_WAIT
      elseif fits(fields) then
        hold(lane, entry, fields, 1)
        num_fresh = num_fresh + 1
        full, closed = fields.alone, fields.alone
      else
        full = true
      end
      if full then
        break
      end
      after = entry[1]
    end
    full = full or #entries < PEEK or num_dropped >= MOST_DROPPED  -- the next take goes on
  end
  if num_fresh > 0 then
    redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', num_fresh, 'STREAMS', STREAMS[lane], '>')
  end
  return closed
end

-- What an idle worker is said to hold was given to it in a reply that it never got, or ended on a server that has been
-- superseded since.
if is_idle() then
  give_back(consumer, 1)
end

-- While suspects wait for this worker to fall idle, it takes nothing new.
local _ = take_orphans(lanes[1]) or take_orphans(lanes[2]) or take_fresh(lanes[1]) or take_fresh(lanes[2])

return {now_us, reason, unpack(taken)}
