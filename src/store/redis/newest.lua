-- Tells which frame is a session's newest.
-- KEYS: counter, prefix of the session's frames
-- ARGV: bytes of the header in a frame's value
-- Returns {number, ms that it still lives, header}, or nil.
local newest = read_counter(KEYS[1])
if not newest then return false end
local frame = KEYS[2] .. newest
local left = redis.call('PTTL', frame)
if left < 0 then return false end
return {newest, left, redis.call('GETRANGE', frame, 0, ARGV[1] - 1)}
