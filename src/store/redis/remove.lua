-- Drops a session with everything that can still be read of it by name, and tells who listens.
-- KEYS: counter, queue, prefix of the session's frames, channel
-- ARGV: latest time in ms, frames at most that were taken of late and can still be read
local counter, queue, frames, channel = unpack(KEYS)
if late(ARGV[1]) then return LATE end
local newest, first = read_counter(counter)
local queued = redis.call('LRANGE', queue, 0, -1)
for _, number in ipairs(queued) do redis.call('DEL', frames .. number) end
if newest then
  local head = tonumber(queued[1] or newest)
  for number = math.max(first, head - ARGV[2]), head do redis.call('DEL', frames .. string.format('%.0f', number)) end
  redis.call('DEL', frames .. newest)
end
redis.call('DEL', counter, queue)
redis.call('PUBLISH', channel, '')
return redis.status_reply('OK')
