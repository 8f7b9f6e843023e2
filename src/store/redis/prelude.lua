-- What the scripts share; it stands before each of them.

-- Redis's clock in Unix milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- What a script answers that starts after its deadline: its caller has been told that the call failed.
local LATE = redis.error_reply('LATE the command came after its deadline')
local function late(latest)
  return time[1] * 1000 + time[2] / 1000 > tonumber(latest)
end

-- The counter of a session holds seven numbers: its newest frame, its first one, two earlier pushes for the rate (number,
-- time in ms, number, time), and the time of the latest push. Returns them as texts, or nil.
local function read_counter(counter)
  local held = redis.call('GET', counter)
  if held then return string.match(held, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$') end
end

-- The viewers of a session, of all replicas together: each has noted how many it has, and until when that holds.
local function count_viewers(viewers)
  local total = 0
  for _, noted in ipairs(redis.call('HVALS', viewers)) do
    local count, ends = string.match(noted, '^(%d+) (%d+)$')
    if count and tonumber(ends) > now then total = total + count end
  end
  return total
end

-- How many numbers at the head of a queue stand for frames that are gone.
local function count_dead(queue, frames, length)
  local dead = 0
  while dead < length and redis.call('EXISTS', frames .. redis.call('LINDEX', queue, dead)) == 0 do
    dead = dead + 1
  end
  return dead
end
