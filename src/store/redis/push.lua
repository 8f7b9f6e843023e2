-- Numbers a frame that waits under a key of its own and appends it to the session's queue.
-- KEYS: counter, queue, the waiting frame, prefix of the session's frames, channel
-- ARGV: life of a frame in ms, frames in the queue at most, life of a taken frame in ms, latest time in ms
-- Returns {number, frames in the queue, frames dropped, 1 if the session begins}; numbers over 2^31 stay exact as text.
-- Nothing is written before everything that can fail has been read, and the first write can fail only as a whole.
local counter, queue, waiting, frames, channel = unpack(KEYS)
local ttl, max, grace, latest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > latest then
  redis.call('DEL', waiting)
  return redis.error_reply('LATE the command came after its deadline')
end

local last = redis.call('GET', counter)
local number = last and last + 1 or time[1] * 1000000 + time[2]
local name = string.format('%.0f', number)

local length = redis.call('LLEN', queue)
local dead = 0
while dead < length and redis.call('EXISTS', frames .. redis.call('LINDEX', queue, dead)) == 0 do
  dead = dead + 1
end
local dropped = math.max(0, length - dead + 1 - max)
local victims = dropped > 0 and redis.call('LRANGE', queue, dead, dead + dropped - 1) or {}
-- A newest frame that was taken kept its whole life so that it stayed the newest. It is not any more.
local spent = nil
if last and dead == length then
  spent = frames .. last
  if redis.call('PTTL', spent) <= grace then spent = nil end
end

redis.call('RENAME', waiting, frames .. name)
redis.call('SET', counter, name, 'PX', ttl)
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
return {name, length - dead - dropped + 1, dropped, last and 0 or 1}
