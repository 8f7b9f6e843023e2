-- One shard of the index of sessions: a sorted set of session ids, scored by the latest time in ms at which the session
-- can still exist.
-- KEYS: shard
-- ARGV: 'add' or 'renew', session, ms that it may live, latest time in ms; or 'size'; or 'list'; or 'ending', ms from now
-- Returns whether the session is listed (renewing lists none anew); the number of sessions; all of them; or those that
-- may have ended or will within so many ms.
local shard, verb = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if (verb == 'add' or verb == 'renew') and time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[4]) then
  return redis.error_reply('LATE the command came after its deadline')
end
redis.call('ZREMRANGEBYSCORE', shard, '-inf', string.format('(%.0f', now))
if verb == 'add' or verb == 'renew' then
  if verb == 'renew' and not redis.call('ZSCORE', shard, ARGV[2]) then return 0 end
  redis.call('ZADD', shard, string.format('%.0f', now + ARGV[3]), ARGV[2])
  return 1
elseif verb == 'list' then
  return redis.call('ZRANGE', shard, 0, -1)
elseif verb == 'ending' then
  return redis.call('ZRANGEBYSCORE', shard, '-inf', string.format('%.0f', now + ARGV[2]), 'LIMIT', 0, 1000)
end
return redis.call('ZCARD', shard)
