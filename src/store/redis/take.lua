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

-- Gives a frame the life of a taken one; false if it is dead. Only the last of the queue can be the newest of the
-- session, which keeps a longer life so that it stays the newest.
local function shorten(frame, number, is_last)
  if is_last and number == redis.call('GET', counter) and redis.call('PTTL', frame) > grace then
    return true
  end
  return redis.call('PEXPIRE', frame, grace) == 1
end

local length = redis.call('LLEN', queue)
for index = 0, length - 1 do
  local number = redis.call('LINDEX', queue, index)
  if shorten(frames .. number, number, index == length - 1) then
    if index == 0 then redis.call('LPOP', queue) else redis.call('LTRIM', queue, index + 1, -1) end
    return {number, length - index - 1}
  end
end
if length > 0 then redis.call('DEL', queue) end
return false
