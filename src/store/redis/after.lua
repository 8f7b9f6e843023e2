-- Finds the first frame after a number that can still be read.
-- KEYS: counter, queue, prefix of the session's frames
-- ARGV: the number, frames to look for at most before the queue begins, and as many from there on
-- Returns {number or false, frames missed, frames found expired}.
local counter, queue, frames = unpack(KEYS)
local last, first = read_counter(counter)
if not last then return {false, 0, 0} end
local from, steps = math.max(ARGV[1] + 1, first), tonumber(ARGV[2])
local dead = count_dead(queue, frames, redis.call('LLEN', queue))
-- What comes before the queue has been taken, and lives for a short while yet.
local head = tonumber(redis.call('LINDEX', queue, dead) or last)
local start = math.max(from, head - steps)
local found, missed = false, 0
for number = start, math.min(tonumber(last), start + 2 * steps) do
  local name = string.format('%.0f', number)
  if redis.call('EXISTS', frames .. name) == 1 then
    found, missed = name, number - from
    break
  end
end
if dead > 0 then redis.call('LTRIM', queue, dead, -1) end
return {found, missed, dead}
