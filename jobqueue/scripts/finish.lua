-- End jobs: with their answers, or, where an answer is empty, without one (cancelled or expired).
-- A second finisher changes nothing, and sends nothing.
--
-- ARGV  per job: lane, entry id, tokens, tenant, job id, answer
-- Returns how many jobs this call ended.

local reply, num_ended = {}, 0

for i = 1, #ARGV, 6 do
  local lane, id, tokens, tenant, job_id, answer = unpack(ARGV, i, i + 5)
  if end_job(lane, id, tokens, tenant) then  -- its first write uses no memory: a full server drains
    num_ended = num_ended + 1
    if answer ~= '' then
      reply[#reply + 1] = job_id
      reply[#reply + 1] = answer
    end
  end
end

if #reply > 0 then
  redis.call('XADD', REPLIES, 'NOMKSTREAM', '*', unpack(reply))
end
return num_ended
