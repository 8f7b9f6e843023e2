-- Takes the oldest frame that still lives off the session's queue. Its bytes are the caller's to read.
-- KEYS: counter, queue, prefix of the session's frames
-- ARGV: life of a taken frame in ms, latest time in ms
-- Returns {number or false, frames left in the queue, frames found expired}.
local counter, queue, frames = KEYS[1], KEYS[2], KEYS[3]
local grace = ARGV[1]

if late(ARGV[2]) then return LATE end

local left = redis.call('LLEN', queue)
local dead = 0
while left > 0 do
  left = left - 1
  -- Only the last of the queue can be the newest of the session, which keeps a longer life so that it stays the newest.
  local newest = left == 0 and read_counter(counter)
  local number = redis.call('LINDEX', queue, 0)
  local frame = frames .. number
  -- In a cluster a frame's key may be on its way to another node, and touching it an error: no number is popped before.
  local lives = number == newest and redis.call('PTTL', frame) > tonumber(grace) or redis.call('PEXPIRE', frame, grace) == 1
  redis.call('LPOP', queue)
  if lives then return {number, left, dead} end
  dead = dead + 1
end
return {false, 0, dead}
