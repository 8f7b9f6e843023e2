-- Notes how many viewers a replica has for a session.
-- KEYS: viewers
-- ARGV: the replica, how many, ms that this holds
local viewers, replica, count, life = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
-- What replicas noted that have died would otherwise stay for as long as somebody watches.
local noted = redis.call('HGETALL', viewers)
for at = 1, #noted, 2 do
  local ends = string.match(noted[at + 1], '^%d+ (%d+)$')
  if not ends or tonumber(ends) <= now then redis.call('HDEL', viewers, noted[at]) end
end
if count == '0' then
  redis.call('HDEL', viewers, replica)
else
  redis.call('HSET', viewers, replica, count .. ' ' .. string.format('%.0f', now + life))
  redis.call('PEXPIRE', viewers, life)
end
return redis.status_reply('OK')
