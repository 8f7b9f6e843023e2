-- Counts what can be taken.
-- KEYS: counter, queue, prefix of the session's frames
-- Returns {1 if the session exists, frames that can be taken}.
local counter, queue, frames = unpack(KEYS)
local exists = redis.call('EXISTS', counter)
local length = redis.call('LLEN', queue)
local dead = 0
while dead < length and redis.call('EXISTS', frames .. redis.call('LINDEX', queue, dead)) == 0 do
  dead = dead + 1
end
-- Each dead number is met once, so that asking often costs no more than the pushes did.
if dead > 0 then redis.call('LTRIM', queue, dead, -1) end
return {exists, length - dead}
