-- End jobs: with their answers, or, where an answer is empty, without one (cancelled or expired).
-- A second finisher changes nothing, and sends nothing.
--
-- ARGV  per job: lane, entry id, tokens, tenant, job id, answer
-- Returns per job 1 where this call ended it, or 0.

local answers, replies = {}, {}

for i = 1, #ARGV, 6 do
  local lane, id, tokens, tenant, job_id, answer = unpack(ARGV, i, i + 5)
  local is_ended = end_job(lane, id, tokens, tenant)  -- its first write uses no memory: a full server drains
  if is_ended and answer ~= '' then
    answers[#answers + 1] = job_id
    answers[#answers + 1] = answer
  end
  replies[#replies + 1] = is_ended and 1 or 0
end

if #answers > 0 then
  redis.call('XADD', REPLIES, 'NOMKSTREAM', '*', unpack(answers))
end
return replies
