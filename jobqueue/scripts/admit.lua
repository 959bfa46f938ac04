-- Admit all jobs of a call, or none.
--
-- KEYS  1 lane stream  2 depth  3 the gateway's reply stream  4 workers  5 loading
-- ARGV  1 lane  2 most tokens in the queue  3 most jobs in the queue  4 reply stream's lifetime, s
--       5 gateway  6 ttl of the jobs, ms  7 the caller's request id  8 1 to admit without a worker
--       then per job: tokens, cost, job id, payload
-- Returns {1, entry id...}, or {0, tokens in the queue, jobs in the queue} where there is no room,
--         or {-1} where there is no worker.

local lane, max_tokens, max_jobs = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local FIRST_JOB, FIELDS = 9, 4

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local num_workers = redis.call('ZCOUNT', KEYS[4], '(' .. now_ms, '+inf') + redis.call('ZCOUNT', KEYS[5], '(' .. now_ms, '+inf')
if num_workers == 0 and ARGV[8] ~= '1' then
  return {-1}
end

local depth = redis.call('HMGET', KEYS[2], 'hi_tokens', 'lo_tokens', 'hi_jobs', 'lo_jobs')
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

-- The first write uses memory, so that a full server refuses the call here, before anything has changed.
local reply = {1}
for i = FIRST_JOB, #ARGV, FIELDS do
  reply[#reply + 1] = redis.call('XADD', KEYS[1], '*', 'tokens', ARGV[i], 'cost', ARGV[i + 1], 'ttl_ms', ARGV[6],
    'gateway', ARGV[5], 'job_id', ARGV[i + 2], 'request_id', ARGV[7], 'payload', ARGV[i + 3])
end
redis.call('HINCRBY', KEYS[2], lane .. '_tokens', new_tokens)
redis.call('HINCRBY', KEYS[2], lane .. '_jobs', new_jobs)

-- Workers drop jobs whose gateway has no reply stream, so it must exist when the job does.
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('XDEL', KEYS[3], redis.call('XADD', KEYS[3], '*', 'open', ''))
end
redis.call('EXPIRE', KEYS[3], ARGV[4])
return reply
