-- One shard of the index of sessions: a sorted set of session ids, scored by the latest time in ms at which the session
-- can still exist.
-- KEYS: shard
-- ARGV and what it returns:
--   'add', session, latest time in ms, ms that it may live         1; an entry that lives longer stays as it is
--   'renew', session, latest time, ms that it may live, ms that a provisional entry lives
--                                                                  0 not listed, 1 renewed, 2 provisional still
--   'remove', session, latest time                                 1
--   'drop', session, score                                         1 if it was there with this very score, else 0
--   'size'                                                         the number of sessions
--   'list'                                                         all of them
--   'ending', ms from now                                          session, score, … of those that end within it
local shard, verb, session = KEYS[1], ARGV[1], ARGV[2]
if (verb == 'add' or verb == 'renew' or verb == 'remove') and late(ARGV[3]) then return LATE end
redis.call('ZREMRANGEBYSCORE', shard, '-inf', string.format('(%.0f', now))

-- Sees to it that the entry lives for at least so long from now.
local function extend(entry, life)
  if not entry or tonumber(entry) < now + life then
    redis.call('ZADD', shard, string.format('%.0f', now + life), session)
  end
end

if verb == 'add' then
  extend(redis.call('ZSCORE', shard, session), ARGV[4])
  return 1
elseif verb == 'renew' then
  local entry, provisional = redis.call('ZSCORE', shard, session), tonumber(ARGV[5])
  if not entry then return 0 end
  -- One that was never confirmed looks like one that is about to end, and is treated like it: this push is to confirm it.
  local confirmed = tonumber(entry) > now + provisional
  extend(entry, confirmed and ARGV[4] or provisional)
  return confirmed and 1 or 2
elseif verb == 'remove' then
  redis.call('ZREM', shard, session)
  return 1
elseif verb == 'drop' then
  local entry = redis.call('ZSCORE', shard, session)
  return entry and tonumber(entry) == tonumber(ARGV[3]) and redis.call('ZREM', shard, session) or 0
elseif verb == 'list' then
  return redis.call('ZRANGE', shard, 0, -1)
elseif verb == 'ending' then
  return redis.call('ZRANGEBYSCORE', shard, '-inf', string.format('%.0f', now + ARGV[2]), 'WITHSCORES', 'LIMIT', 0, 1000)
end
return redis.call('ZCARD', shard)
