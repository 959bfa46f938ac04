-- Admit calls: of each call all jobs, or none.
--
-- Interactive work is refused where what is ahead of it takes longer than it may wait, bulk work where its share of the
-- queue is full, and both where they would expire before their turn. A tenant may hold as many tokens of a lane as are
-- free there, so that there is always room for another one (dynamic thresholds: Choudhury and Hahne, IEEE/ACM
-- Transactions on Networking 6(2), 1998).
--
-- ARGV  1 gateway  2 reply stream's lifetime, s  3 most tokens in the queue  4 most jobs in the queue
--       5 most tokens in the queue under which bulk work is admitted  6 most jobs, likewise
--       7 most that interactive work waits, ms  8 most tokens ahead of interactive work while the pace is unknown
--       then per call: lane, ttl of its jobs in ms, the caller's request id, tenant or nothing, 1 to admit without a
--       worker, 1 to admit what was admitted before and lost whatever the limits, 1 for one that was refused and has
--       come back, trace context or nothing, number of jobs
--       and per job of it: tokens, cost, job id, payload
-- Returns per call {1, entry id...}, or {0, tokens in the queue, jobs in the queue, ms until it is worth another try}
--         where there is no room, or {-1} where there is no worker, or {-2} where the queue is being drained.

local gateway, replies_lifetime_s = ARGV[1], ARGV[2]
local MOST = {hi = {tokens = tonumber(ARGV[3]), jobs = tonumber(ARGV[4])},
              lo = {tokens = tonumber(ARGV[5]), jobs = tonumber(ARGV[6])}}
local max_wait_s, unmeasured_tokens = tonumber(ARGV[7]) / 1000, tonumber(ARGV[8])
local FIRST_CALL, CALL_FIELDS, JOB_FIELDS = 9, 9, 4
local HI_SHARE = 3 / 4  -- of the takes; every fourth begins with the low lane
local PLANNED_SHARE = 0.9  -- of the wait that is allowed: the pace is an estimate
local NEW_SHARE = 0.8  -- of the room, while some who were refused have been told to come back
local LEAST_RETRY_MS, UNMEASURED_RETRY_MS, MOST_RETRY_MS = 500, 1000, {hi = 30000, lo = 300000}

local now_ms = server_time_ms()
local control = redis.call('HMGET', CONTROL, 'tokens_per_s', 'draining', 'hi_retry_ms', 'lo_retry_ms')
local tokens_per_s, draining = tonumber(control[1] or 0), control[2]
local promised_ms = {hi = tonumber(control[3] or 0), lo = tonumber(control[4] or 0)}
local has_promised = {}
local found = redis.call('HMGET', DEPTH, 'hi_tokens', 'hi_jobs', 'lo_tokens', 'lo_jobs')
local depth = {hi = {tokens = tonumber(found[1] or 0), jobs = tonumber(found[2] or 0)},
               lo = {tokens = tonumber(found[3] or 0), jobs = tonumber(found[4] or 0)}}
local added = {hi = {tokens = 0, jobs = 0}, lo = {tokens = 0, jobs = 0}}
local has_worker, has_groups

local function has_live_worker()
  if has_worker == nil then
    local live = redis.call('ZCOUNT', WORKERS, '(' .. now_ms, '+inf')
    has_worker = live + redis.call('ZCOUNT', LOADING, '(' .. now_ms, '+inf') > 0
  end
  return has_worker
end

local function read_call(at)
  local call = {lane = ARGV[at], ttl_ms = ARGV[at + 1], request_id = ARGV[at + 2], tenant = ARGV[at + 3],
                wakeable = ARGV[at + 4] == '1', again = ARGV[at + 5] == '1', is_retry = ARGV[at + 6] == '1',
                trace = ARGV[at + 7], jobs = tonumber(ARGV[at + 8]), tokens = 0, first_job = at + CALL_FIELDS}
  for i = call.first_job, call.first_job + (call.jobs - 1) * JOB_FIELDS, JOB_FIELDS do
    call.tokens = call.tokens + tonumber(ARGV[i])
  end
  return call
end

-- Tokens that must end before the call is admitted, none where it is admitted now; and how many end per second.
local function excess(call)
  local tokens, jobs = depth.hi.tokens + depth.lo.tokens, depth.hi.jobs + depth.lo.jobs
  local most = MOST[call.lane]
  local lane_tokens, pace, most_ahead = depth[call.lane].tokens, tokens_per_s, most.tokens
  if call.lane == 'lo' and depth.hi.tokens > 0 then
    pace = tokens_per_s * (1 - HI_SHARE)
  elseif call.lane == 'hi' then
    pace = depth.lo.tokens > 0 and tokens_per_s * HI_SHARE or tokens_per_s
    most_ahead = math.min(most.tokens, pace > 0 and pace * max_wait_s * PLANNED_SHARE or unmeasured_tokens)
  end
  if promised_ms[call.lane] > now_ms and not call.is_retry then
    most_ahead = most_ahead * NEW_SHARE
  end
  local over = math.max(tokens + call.tokens - most.tokens, lane_tokens - most_ahead)
  if jobs + call.jobs > most.jobs then
    over = math.max(over, jobs > 0 and tokens / jobs * (jobs + call.jobs - most.jobs) or call.tokens)
  end
  if pace > 0 then
    over = math.max(over, lane_tokens - pace * tonumber(call.ttl_ms) / 1000 * PLANNED_SHARE)
  end
  local held = call.tenant ~= '' and tonumber(redis.call('HGET', TENANTS, call.lane .. ':' .. call.tenant) or 0) or 0
  if held > 0 then
    over = math.max(over, held + call.tokens - (most_ahead - lane_tokens))
  end
  return over, pace
end

-- Those refused are told different times, at the pace of the queue: told the same, they would all come back together.
-- Room is kept for them, so that they need come back once only; who came a little early has not lost his turn.
local function retry_after_ms(call, over, pace)
  if pace == 0 then
    return UNMEASURED_RETRY_MS
  end
  local room_ms = now_ms + math.max(over / pace * 1000, LEAST_RETRY_MS)
  local turn_ms = call.is_retry and room_ms or math.max(promised_ms[call.lane], room_ms)
  turn_ms = math.min(turn_ms, now_ms + MOST_RETRY_MS[call.lane])
  if not call.is_retry then
    promised_ms[call.lane] = math.floor(turn_ms + call.tokens / pace * 1000)
    has_promised[call.lane] = true
  end
  return math.floor(turn_ms - now_ms)
end

local function add(call)
  local reply = {1}
  local trace = call.trace ~= '' and {'trace', call.trace} or {}
  for i = call.first_job, call.first_job + (call.jobs - 1) * JOB_FIELDS, JOB_FIELDS do
    reply[#reply + 1] = redis.call('XADD', STREAMS[call.lane], '*', 'tokens', ARGV[i], 'cost', ARGV[i + 1],
      'ttl_ms', call.ttl_ms, 'gateway', gateway, 'tenant', call.tenant, 'job_id', ARGV[i + 2],
      'request_id', call.request_id, 'payload', ARGV[i + 3], unpack(trace))
  end
  for _, counts in ipairs({depth[call.lane], added[call.lane]}) do
    counts.tokens, counts.jobs = counts.tokens + call.tokens, counts.jobs + call.jobs
  end
  if call.tenant ~= '' then
    redis.call('HINCRBY', TENANTS, call.lane .. ':' .. call.tenant, call.tokens)
  end
  return reply
end

local function admit(call)
  if not call.again then
    if draining then
      return {-2}
    elseif not call.wakeable and not has_live_worker() then
      return {-1}
    end
    local over, pace = excess(call)
    if over > 0 then
      return {0, depth.hi.tokens + depth.lo.tokens, depth.hi.jobs + depth.lo.jobs, retry_after_ms(call, over, pace)}
    end
  end
  if not has_groups then
    make_groups()
    has_groups = true
  end
  return add(call)
end

-- The first write uses memory, so that a full server refuses the first call here, before anything has changed.
local replies, at = {}, FIRST_CALL
while at <= #ARGV do
  local call = read_call(at)
  replies[#replies + 1] = admit(call)
  at = call.first_job + call.jobs * JOB_FIELDS
end

for lane, counts in pairs(added) do
  if counts.jobs > 0 then
    redis.call('HINCRBY', DEPTH, lane .. '_tokens', counts.tokens)
    redis.call('HINCRBY', DEPTH, lane .. '_jobs', counts.jobs)
    keep_replies_open(replies_lifetime_s)
  end
end
for lane in pairs(has_promised) do
  redis.call('HSET', CONTROL, lane .. '_retry_ms', promised_ms[lane])
end
return replies
