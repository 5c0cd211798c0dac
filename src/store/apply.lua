-- Compare and write: each step at once, atomically, for one owner (a customer or its resource).
--
-- KEYS, for each step: its lock, its tombstone, for usage the customer's timestamp key, then the
-- timestamp keys of its items, then the value keys in the same order.
-- ARGV: TTL in seconds (0: none), '1' for UPDATE_IF_EXISTS, the tombstone's TTL; then for each step
-- its action (S, U, P), the number of its items, its own time; for each item its time and value.
-- A time that begins with 'A' is of an item that is written only where nothing is stored; with 'P',
-- only where a timestamp is stored.
--
-- Answers for each step: the number of items written (tombstone included) plus 65536 for each stale
-- one; -1 LOCKED, -2 not cached, -3 expired (nothing written or stale, and no timestamp stored); or
-- the text of an error, which concerns that step alone.
-- Times are epoch milliseconds: doubles hold them exactly.
-- Of Redis' commands it calls MGET, SET and DEL alone: what the documented permissions and a server's renaming allow for.

-- Kept as text: Redis 7.0 converts a number back to text for each SET.
local ttl, if_exists, tombstone_ttl = ARGV[1], ARGV[2] == '1', ARGV[3]
local LOCKED, NOT_CACHED, EXPIRED, STALE = -1, -2, -3, 65536
local CHUNK = 1000 -- unpack is limited by Lua's stack

local function mget(from, to)
  local values = {}
  for start = from, to, CHUNK do
    local chunk = redis.call('MGET', unpack(KEYS, start, math.min(start + CHUNK - 1, to)))
    for i = 1, #chunk do
      values[start - from + i] = chunk[i]
    end
  end
  return values
end

-- A stored time; what is not a finite number counts as none.
local function time_of(text)
  local time = tonumber(text or '')
  return time and time - time == 0 and time or nil
end

local function put(key, value)
  if ttl ~= '0' then
    redis.call('SET', key, value, 'EX', ttl)
  else
    redis.call('SET', key, value)
  end
end

local function step(key, arg, action, count, at)
  local guards = action == 'U' and 3 or 2
  local stored = mget(key, key + guards + count - 1)
  local stamps, values = key + guards - 1, key + guards + count - 1
  if stored[1] then
    return LOCKED
  end
  local tombstone = time_of(stored[2])

  if action == 'P' then
    local done, marked = 0, 0
    for i = 1, count do
      local stamp = time_of(stored[guards + i])
      if at == 0 or not stamp or stamp <= at then
        redis.call('DEL', KEYS[values + i], KEYS[stamps + i])
        done = done + 1
      end
    end
    if at > 0 and not (tombstone and tombstone >= at) then
      redis.call('SET', KEYS[key + 1], string.format('%.0f', at), 'EX', tombstone_ttl)
      marked = 1
    end
    return done + marked + (count - done) * STALE
  end

  if action == 'U' and not stored[3] then
    return NOT_CACHED
  end
  if action == 'S' and if_exists then
    local exists = false
    for i = 1, count do
      exists = exists or stored[guards + i]
    end
    if not exists then
      return NOT_CACHED
    end
  end

  -- A customer loaded after a purge may well bring usage from before it: the step as a whole is
  -- older than the tombstone, or none of it is.
  local purged = tombstone and at > 0 and tombstone > at
  local done, stale, expired = 0, 0, 0
  for i = 1, count do
    local time, allowed = ARGV[arg + 2 * (i - 1)], true
    local stamp, now = time_of(stored[guards + i]), tonumber(time)
    if not now then
      local condition = time:sub(1, 1)
      time = time:sub(2)
      now = tonumber(time)
      if condition == 'A' then
        allowed = not stored[guards + i] and not redis.call('MGET', KEYS[values + i])[1]
      elseif not stamp then
        allowed, expired = false, expired + 1
      end
    end
    if not allowed then
      -- Neither written nor stale.
    elseif now == 0 or not (purged or (stamp and stamp > now)) then
      put(KEYS[values + i], ARGV[arg + 2 * i - 1])
      put(KEYS[stamps + i], time)
      done = done + 1
    else
      stale = stale + 1
    end
  end
  if expired > 0 and done == 0 and stale == 0 then
    return EXPIRED
  end
  return done + stale * STALE
end

local answers = {}
local key, arg = 1, 4
while ARGV[arg] do
  local action, count, at = ARGV[arg], tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local ok, answer = pcall(step, key, arg + 3, action, count, at)
  if not ok then
    answer = type(answer) == 'table' and answer.err or tostring(answer)
  end
  answers[#answers + 1] = answer
  key = key + (action == 'U' and 3 or 2) + 2 * count
  arg = arg + 3 + (action == 'P' and 0 or 2 * count)
end
return answers
