-- Notes how many viewers a replica has for a session.
-- KEYS: viewers
-- ARGV: the replica, how many, ms that this holds
local viewers, replica, count, life = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if count == '0' then
  redis.call('HDEL', viewers, replica)
else
  redis.call('HSET', viewers, replica, count .. ' ' .. string.format('%.0f', now + life))
  redis.call('PEXPIRE', viewers, life)
end
return redis.status_reply('OK')
