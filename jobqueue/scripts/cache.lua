-- Read answers that are kept, and keep new ones.
--
-- KEYS  1 digest -> expiry and answer  2 digest -> last use  3 the bytes that all of them count for
-- ARGV  1 most bytes  2 lifetime of an answer, ms
--       then per answer: its digest, and the answer to keep it, or nothing to read it
-- Returns per answer what is kept of those to read, or nothing.
--
-- The queue goes before the cache: on a full server nothing is kept, and every call gives some memory back.

local ANSWERS, USES, BYTES = unpack(KEYS)
local most_bytes, lifetime_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local FIRST, EXPIRY_BYTES = 3, 8
local ENTRY_BYTES = 320  -- that Redis needs for a field and a member
local ALLOCATED = 5 / 4  -- allocators round up by a quarter at most
local now_ms = server_time_ms()
local num_bytes = tonumber(redis.call('GET', BYTES) or 0)
local num_dropped = 0

local function size(length)
  return math.ceil(length * ALLOCATED) + ENTRY_BYTES
end

local function read(digest)
  local kept = redis.call('HGET', ANSWERS, digest)
  if not kept or #kept < EXPIRY_BYTES or struct.unpack('<I8', kept) <= now_ms then
    return ''
  end
  return string.sub(kept, EXPIRY_BYTES + 1)
end

-- What has not been used for longest goes first. Returns whether there was any.
local function drop_one()
  local digest = redis.call('ZPOPMIN', USES)[1]
  if not digest then
    num_bytes = 0
    return false
  end
  num_bytes = num_bytes - size(redis.call('HSTRLEN', ANSWERS, digest))
  num_dropped = num_dropped + 1
  redis.call('HDEL', ANSWERS, digest)
  return true
end

-- Where too little has been dropped, the rest is left to the next calls: a script must not hold up the server.
local function keep(digest, answer)
  local needed = size(EXPIRY_BYTES + #answer)
  while num_bytes + needed > most_bytes and num_dropped < AT_ONCE and drop_one() do end
  if num_bytes + needed > most_bytes then
    return
  end
  local before = redis.call('HSTRLEN', ANSWERS, digest)
  num_bytes = num_bytes + needed - (before > 0 and size(before) or 0)
  redis.call('HSET', ANSWERS, digest, struct.pack('<I8', now_ms + lifetime_ms) .. answer)
  redis.call('ZADD', USES, now_ms, digest)
end

-- Changes nothing about those that are not kept, and is refused where the server is full.
local function use_all()
  local uses = {}
  for i = FIRST, #ARGV, 2 do
    uses[#uses + 1] = now_ms
    uses[#uses + 1] = ARGV[i]
  end
  return redis.pcall('ZADD', USES, 'XX', unpack(uses))
end

local used = use_all()
local is_full = type(used) == 'table'
if is_full and not string.find(used.err, 'OOM') then
  return used
end

local replies, has_news = {}, false
for i = FIRST, #ARGV, 2 do
  replies[#replies + 1] = ''
  if ARGV[i + 1] == '' then
    replies[#replies] = read(ARGV[i])
  elseif not is_full then
    keep(ARGV[i], ARGV[i + 1])
    has_news = true
  end
end
while is_full and num_dropped < AT_ONCE and drop_one() do end

if has_news or num_dropped > 0 then
  redis.call('SET', BYTES, num_bytes, 'KEEPTTL')
end
if has_news then
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIREAT', key, now_ms + lifetime_ms)
  end
end
return replies
