-- Admit all jobs of a call, or none.
--
-- KEYS  1 hi stream  2 lo stream  3 depth  4 the gateway's reply stream  5 workers  6 loading
-- ARGV  1 lane  2 most tokens in the queue  3 most jobs in the queue  4 reply stream's lifetime, s
--       5 gateway  6 ttl of the jobs, ms  7 the caller's request id  8 1 to admit without a worker
--       then per job: tokens, cost, job id, payload
-- Returns {1, entry id...}, or {0, tokens in the queue, jobs in the queue} where there is no room,
--         or {-1} where there is no worker.

local lane, max_tokens, max_jobs = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local FIRST_JOB, FIELDS = 9, 4

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local num_workers = 0
for _, leases in ipairs({KEYS[5], KEYS[6]}) do
  num_workers = num_workers + redis.call('ZCOUNT', leases, '(' .. now_ms, '+inf')
end
if num_workers == 0 and ARGV[8] ~= '1' then
  return {-1}
end

local depth = redis.call('HMGET', KEYS[3], 'hi_tokens', 'lo_tokens', 'hi_jobs', 'lo_jobs')
local tokens = tonumber(depth[1] or 0) + tonumber(depth[2] or 0)
local jobs = tonumber(depth[3] or 0) + tonumber(depth[4] or 0)

local new_tokens, new_jobs = 0, 0
for i = FIRST_JOB, #ARGV, FIELDS do
  new_tokens = new_tokens + tonumber(ARGV[i])
  new_jobs = new_jobs + 1
end
if tokens + new_tokens > max_tokens or jobs + new_jobs > max_jobs then
  return {0, tokens, jobs}
end

-- The first write uses memory, so that a full server refuses the call here, before anything has changed. The groups
-- are made here as well as by workers: a worker that comes to a full server could not make them any more.
for _, lane_stream in ipairs({KEYS[1], KEYS[2]}) do
  if redis.call('EXISTS', lane_stream) == 0 then
    redis.call('XGROUP', 'CREATE', lane_stream, 'workers', '0', 'MKSTREAM')
  end
end
local stream = lane == 'hi' and KEYS[1] or KEYS[2]
local reply = {1}
for i = FIRST_JOB, #ARGV, FIELDS do
  reply[#reply + 1] = redis.call('XADD', stream, '*', 'tokens', ARGV[i], 'cost', ARGV[i + 1], 'ttl_ms', ARGV[6],
    'gateway', ARGV[5], 'job_id', ARGV[i + 2], 'request_id', ARGV[7], 'payload', ARGV[i + 3])
end
redis.call('HINCRBY', KEYS[3], lane .. '_tokens', new_tokens)
redis.call('HINCRBY', KEYS[3], lane .. '_jobs', new_jobs)

-- Workers drop jobs whose gateway has no reply stream, so it must exist when the job does.
if redis.call('EXISTS', KEYS[4]) == 0 then
  redis.call('XDEL', KEYS[4], redis.call('XADD', KEYS[4], '*', 'open', ''))
end
redis.call('EXPIRE', KEYS[4], ARGV[4])
return reply
