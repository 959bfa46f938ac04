-- Admit all jobs of a call, or none.
--
-- Interactive work is refused where what is ahead of it takes longer than it may wait, bulk work where its share of the
-- queue is full, and both where they would expire before their turn. A tenant may hold as many tokens of a lane as are
-- free there, so that there is always room for another one (dynamic thresholds: Choudhury and Hahne, IEEE/ACM
-- Transactions on Networking 6(2), 1998).
--
-- ARGV  1 lane  2 most tokens in the queue  3 most jobs in the queue  4 reply stream's lifetime, s
--       5 gateway  6 ttl of the jobs, ms  7 the caller's request id  8 1 to admit without a worker
--       9 1 to admit what was admitted before and lost, whatever the limits  10 tenant, or nothing
--       11 most that interactive work waits, ms  12 most tokens ahead of interactive work while the pace is unknown
--       then per job: tokens, cost, job id, payload
-- Returns {1, entry id...}, or {0, tokens in the queue, jobs in the queue, ms until it is worth another try} where there
--         is no room, or {-1} where there is no worker, or {-2} where the queue is being drained.

local lane, max_tokens, max_jobs, ttl_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
local wakeable, again, tenant = ARGV[8] == '1', ARGV[9] == '1', ARGV[10]
local max_wait_s, unmeasured_tokens = tonumber(ARGV[11]) / 1000, tonumber(ARGV[12])
local FIRST_JOB, FIELDS = 13, 4
local HI_SHARE = 3 / 4  -- of the takes; every fourth begins with the low lane
local LEAST_RETRY_MS, UNMEASURED_RETRY_MS, MOST_RETRY_MS = 100, 1000, 30000

local now_ms = server_time_ms()
local paced, draining, promised_ms = unpack(redis.call('HMGET', CONTROL, 'tokens_per_s', 'draining', 'retry_ms'))
local tokens_per_s = tonumber(paced or 0)
local depth = redis.call('HMGET', DEPTH, 'hi_tokens', 'lo_tokens', 'hi_jobs', 'lo_jobs')
local hi_tokens, lo_tokens = tonumber(depth[1] or 0), tonumber(depth[2] or 0)
local tokens, jobs = hi_tokens + lo_tokens, tonumber(depth[3] or 0) + tonumber(depth[4] or 0)

local new_tokens, new_jobs = 0, 0
for i = FIRST_JOB, #ARGV, FIELDS do
  new_tokens = new_tokens + tonumber(ARGV[i])
  new_jobs = new_jobs + 1
end

local function has_worker()
  for _, leases in ipairs({WORKERS, LOADING}) do
    if redis.call('ZCOUNT', leases, '(' .. now_ms, '+inf') > 0 then
      return true
    end
  end
  return false
end

-- Tokens that must end before the call is admitted; none where it is admitted now.
local function excess()
  local lane_tokens, pace, most_ahead = tokens, tokens_per_s, max_tokens
  if lane == 'hi' then
    lane_tokens = hi_tokens
    pace = lo_tokens > 0 and tokens_per_s * HI_SHARE or tokens_per_s
    most_ahead = math.min(max_tokens, math.max(pace * max_wait_s, unmeasured_tokens))
  end
  local over = math.max(tokens + new_tokens - max_tokens, lane_tokens - most_ahead)
  if jobs + new_jobs > max_jobs then
    over = math.max(over, tokens / jobs * (jobs + new_jobs - max_jobs))
  end
  if pace > 0 then
    over = math.max(over, lane_tokens - pace * ttl_ms / 1000)
  end
  local held = tenant ~= '' and tonumber(redis.call('HGET', TENANTS, lane .. ':' .. tenant) or 0) or 0
  if held > 0 then
    over = math.max(over, held + new_tokens - (most_ahead - lane_tokens))
  end
  return over
end

-- Those refused are told different times, at the pace of the queue: told the same, they would all come back together.
local function retry_after_ms(over)
  if tokens_per_s == 0 then
    return UNMEASURED_RETRY_MS
  end
  local turn_ms = math.max(tonumber(promised_ms or 0), now_ms + over / tokens_per_s * 1000)
  turn_ms = math.min(math.max(turn_ms, now_ms + LEAST_RETRY_MS), now_ms + MOST_RETRY_MS)
  redis.call('HSET', CONTROL, 'retry_ms', math.floor(turn_ms + new_tokens / tokens_per_s * 1000))
  return math.floor(turn_ms - now_ms)
end

if not again then
  if draining then
    return {-2}
  elseif not wakeable and not has_worker() then
    return {-1}
  end
  local over = excess()
  if over > 0 then
    return {0, tokens, jobs, retry_after_ms(over)}
  end
end

-- The first write uses memory, so that a full server refuses the call here, before anything has changed. The groups
-- are made here as well as by workers: a worker that comes to a full server could not make them any more.
for _, stream in pairs(STREAMS) do
  if redis.call('EXISTS', stream) == 0 then
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
  end
end
local reply = {1}
for i = FIRST_JOB, #ARGV, FIELDS do
  reply[#reply + 1] = redis.call('XADD', STREAMS[lane], '*', 'tokens', ARGV[i], 'cost', ARGV[i + 1], 'ttl_ms', ARGV[6],
    'gateway', ARGV[5], 'tenant', tenant, 'job_id', ARGV[i + 2], 'request_id', ARGV[7], 'payload', ARGV[i + 3])
end
redis.call('HINCRBY', DEPTH, lane .. '_tokens', new_tokens)
redis.call('HINCRBY', DEPTH, lane .. '_jobs', new_jobs)
if tenant ~= '' then
  redis.call('HINCRBY', TENANTS, lane .. ':' .. tenant, new_tokens)
end
keep_replies_open(ARGV[4])
return reply
