-- Numbers a frame that waits under a key of its own and appends it to the session's queue.
-- KEYS: counter, queue, the waiting frame, prefix of the session's frames, channel, viewers
-- ARGV: life of a frame in ms, frames in the queue at most, life of a taken frame in ms, latest time in ms, ms after which
--       the rate is measured from another push, ms without a push after which it is measured anew
-- Returns {number, frames in the queue, frames dropped, 1 if the session begins, viewers, frames found expired};
-- numbers over 2^31 stay exact as text.
-- Nothing is written before everything that can fail has been read, and the first write can fail only as a whole.
local counter, queue, waiting, frames, channel, viewers = unpack(KEYS)
local ttl, max, grace, sample = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])

if late(ARGV[4]) then
  redis.call('DEL', waiting)
  return LATE
end

local last, first, older, older_at, newer, newer_at, last_at = read_counter(counter)
local number = last and last + 1 or time[1] * 1000000 + time[2]
local name, at = string.format('%.0f', number), string.format('%.0f', now)
first = first or name
if not last or now - last_at >= tonumber(ARGV[6]) then
  older, older_at, newer, newer_at = name, at, name, at
elseif now - newer_at >= sample then
  older, older_at, newer, newer_at = newer, newer_at, name, at
end
local watching = count_viewers(viewers)

local length = redis.call('LLEN', queue)
local dead = count_dead(queue, frames, length)
local dropped = math.max(0, length - dead + 1 - max)
local victims = dropped > 0 and redis.call('LRANGE', queue, dead, dead + dropped - 1) or {}
-- A newest frame that was taken kept its whole life so that it stayed the newest. It is not any more.
local spent = nil
if last and dead == length then
  spent = frames .. last
  if redis.call('PTTL', spent) <= grace then spent = nil end
end

redis.call('RENAME', waiting, frames .. name)
redis.call('SET', counter, table.concat({name, first, older, older_at, newer, newer_at, at}, ' '), 'PX', ttl)
if spent then redis.call('PEXPIRE', spent, grace) end
if dead + dropped == 1 then
  redis.call('LPOP', queue)
elseif dead + dropped > 1 then
  redis.call('LTRIM', queue, dead + dropped, -1)
end
for _, victim in ipairs(victims) do redis.call('DEL', frames .. victim) end
redis.call('RPUSH', queue, name)
redis.call('PEXPIRE', queue, ttl)
redis.call('PUBLISH', channel, name)
return {name, length - dead - dropped + 1, dropped, last and 0 or 1, watching, dead}
