-- Tells how a session stands.
-- KEYS: counter, queue, prefix of the session's frames, viewers
-- ARGV: ms after which a session without pushes has no rate
-- Returns {frames that can be taken, frames found expired, newest number or false, its age in ms, frames a second as text,
-- viewers}; the newest number is false where there is no such session.
local counter, queue, frames, viewers = unpack(KEYS)
local last, _, older, older_at, _, _, at = read_counter(counter)
local length = redis.call('LLEN', queue)
local dead = count_dead(queue, frames, length)
-- Each dead number is met once, so that asking often costs no more than the pushes did.
if dead > 0 then redis.call('LTRIM', queue, dead, -1) end
local watching = count_viewers(viewers)
if not last then return {length - dead, dead, false, 0, '0', watching} end
local age, span = math.max(0, now - at), at - older_at
local rate = age < tonumber(ARGV[1]) and span > 0 and (last - older) * 1000 / span or 0
return {length - dead, dead, last, age, string.format('%.6f', rate), watching}
