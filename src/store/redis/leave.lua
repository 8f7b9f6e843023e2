-- Gives the wheel back, and tells the vehicles.
-- KEYS: wheel, channel
-- ARGV: the operator, the message that it has left, the message that something has changed
local wheel, channel, operator = KEYS[1], KEYS[2], ARGV[1]
local driver = redis.call('GET', wheel)
if driver and string.sub(driver, 1, #operator + 1) == operator .. ' ' then
  redis.call('DEL', wheel)
  redis.call('PUBLISH', channel, ARGV[2])
  redis.call('PUBLISH', channel, ARGV[3])
end
return redis.status_reply('OK')
