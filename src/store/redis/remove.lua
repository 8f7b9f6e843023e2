-- Drops a session with everything that can still be read of it by name.
-- KEYS: counter, queue, prefix of the session's frames
-- ARGV: latest time in ms
local counter, queue, frames = unpack(KEYS)
local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[1]) then
  return redis.error_reply('LATE the command came after its deadline')
end
local newest = redis.call('GET', counter)
for _, number in ipairs(redis.call('LRANGE', queue, 0, -1)) do redis.call('DEL', frames .. number) end
if newest then redis.call('DEL', frames .. newest) end
redis.call('DEL', counter, queue)
return redis.status_reply('OK')
