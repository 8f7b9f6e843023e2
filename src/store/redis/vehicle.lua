-- Notes a vehicle, or that it has gone.
-- KEYS: vehicles, channel
-- ARGV: the vehicle, what is told of it or nothing, ms that this holds, vehicles at most, the message that something has changed
-- Returns 1, or 0 where there are too many
local vehicles, channel, vehicle, note, life = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if note == '' then
  if redis.call('HDEL', vehicles, vehicle) == 1 then redis.call('PUBLISH', channel, ARGV[5]) end
  return 1
end
-- What replicas noted that have died would otherwise stay for as long as another vehicle is there.
local noted = redis.call('HGETALL', vehicles)
local count, known = 0, false
for at = 1, #noted, 2 do
  local ends = string.match(noted[at + 1], '^(%d+) ')
  if not ends or tonumber(ends) <= now then
    redis.call('HDEL', vehicles, noted[at])
  else
    count = count + 1
    known = known or noted[at] == vehicle
  end
end
if not known and count >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', vehicles, vehicle, string.format('%.0f', now + life) .. ' ' .. note)
redis.call('PEXPIRE', vehicles, life)
if not known then redis.call('PUBLISH', channel, ARGV[5]) end
return 1
