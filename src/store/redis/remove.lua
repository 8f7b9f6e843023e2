-- Drops a session with everything that can still be read of it by name, and tells who listens.
-- KEYS: counter, queue, prefix of the session's frames, channel
-- ARGV: latest time in ms
local counter, queue, frames, channel = unpack(KEYS)
if late(ARGV[1]) then return LATE end
local newest = read_counter(counter)
for _, number in ipairs(redis.call('LRANGE', queue, 0, -1)) do redis.call('DEL', frames .. number) end
if newest then redis.call('DEL', frames .. newest) end
redis.call('DEL', counter, queue)
redis.call('PUBLISH', channel, '')
return redis.status_reply('OK')
