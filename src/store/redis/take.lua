-- Takes the oldest frame that still lives off the session's queue. Its bytes are the caller's to read.
-- KEYS: counter, queue, prefix of the session's frames
-- ARGV: life of a taken frame in ms, latest time in ms
-- Returns {number, frames left in the queue}, or nil.
local counter, queue, frames = unpack(KEYS)
local grace, latest = tonumber(ARGV[1]), tonumber(ARGV[2])

local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > latest then
  return redis.error_reply('LATE the command came after its deadline')
end

local length = redis.call('LLEN', queue)
for index = 0, length - 1 do
  local number = redis.call('LINDEX', queue, index)
  local life = redis.call('PTTL', frames .. number)
  if life > 0 then
    -- The newest keeps a longer life, so that it stays the newest; a shorter one would end before it could be read.
    if life < grace or number ~= redis.call('GET', counter) then
      redis.call('PEXPIRE', frames .. number, grace)
    end
    redis.call('LTRIM', queue, index + 1, -1)
    return {number, length - index - 1}
  end
end
if length > 0 then redis.call('DEL', queue) end
return false
