-- Gives the wheel to an operator who may have it, and hands on what that operator says.
-- KEYS: wheel, vehicles, channel
-- ARGV: the operator, its name, claim, how long the wheel is held in ms or 'lease' for the longest lease of the vehicles, latest
--       time in ms, the message that something has changed, then the messages to hand on
-- Returns {0} where it is too late; else {1, operator and name of who holds the wheel, what is noted of the vehicles}
local wheel, vehicles, channel = unpack(KEYS)
local operator, name, claim, hold = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #ARGV > 6 and late(ARGV[5]) then return {0} end

local driver = redis.call('GET', wheel)
local noted = redis.call('HGETALL', vehicles)
local listening, longest = {}, 0
for at = 1, #noted, 2 do
  local ends, lease = string.match(noted[at + 1], '^(%d+) (%d+) ')
  if ends and tonumber(ends) > now then
    table.insert(listening, noted[at])
    table.insert(listening, noted[at + 1])
    longest = math.max(longest, tonumber(lease))
  end
end

local me = operator .. ' ' .. name
local holds = driver and string.sub(driver, 1, #operator + 1) == operator .. ' '
local gets = claim == 'take' or (not driver and (claim == 'free' or (claim == 'listening' and #listening > 0)))
if holds or gets then
  local life = tonumber(hold) or longest
  if life > 0 then redis.call('SET', wheel, me, 'PX', life) end
  if not holds then redis.call('PUBLISH', channel, ARGV[6]) end
  for at = 7, #ARGV do redis.call('PUBLISH', channel, ARGV[at]) end
  driver = me
end
return {1, driver or '', listening}
