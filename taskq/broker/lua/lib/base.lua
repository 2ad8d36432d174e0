-- What every script begins with: the partition's prefix, the clock, reading what is stored, counting.
-- Key names are listed in taskq/broker/keys.py. Ids and values are opaque bytes; no script decodes msgpack.
local P = KEYS[1]
local call, sub, byte, find = redis.call, string.sub, string.byte, string.find

-- Server time in milliseconds, with the microseconds as a fraction.
local function clock()
  local t = call('TIME')
  return t[1] * 1000 + t[2] / 1000 + 0 --[[test clock]]
end

local function int(n) return string.format('%.0f', n) end

-- A script whose first write frees memory goes on to its end when the server is over maxmemory.
local function begin_writes() call('DEL', P .. 'none') end

-- queue, task, accepted (ms), flags, and where what follows the names begins; nothing if this is not a head (see
-- taskq/message/envelope.py for the layout).
local function head(value)
  if not value or byte(value, 1) ~= 1 then return nil end
  local at = 11
  if (byte(value, 2) or 0) % 2 == 1 then at = 19 end
  local task_len = byte(value, at)
  local queue_at = task_len and at + 1 + task_len
  local queue_len = queue_at and byte(value, queue_at)
  if not queue_len or queue_at + queue_len > #value then return nil end
  return sub(value, queue_at + 1, queue_at + queue_len), sub(value, at + 1, queue_at - 1),
    (struct.unpack('>d', sub(value, 3, 10))), byte(value, 2), queue_at + queue_len + 1
end

-- Letters that say what is special of a queue, so that one without them pays nothing: p paused, r has ranked messages,
-- l has tasks with limits, o was given messages that run at most once and have their own elsewhere, x has a length at most
-- and messages that expire. Those of `*` are letters of all queues.
local marks_of = {}
local rare -- false where a script has seen that no queue has any
local function marks(queue)
  local letters = marks_of[queue]
  if not letters then
    local own, common = unpack(rare ~= false and call('HMGET', P .. 'marks', queue, '*') or {})
    letters = (own or '') .. (common or '')
    marks_of[queue] = letters
  end
  return letters
end

-- Counters of the ledger: gathered in a table, written once a call.
local counts = {}
local function count(queue, what, n)
  local field = queue .. '|' .. what
  counts[field] = (counts[field] or 0) + (n or 1)
end
local function write_counts()
  for field, n in pairs(counts) do
    if n ~= 0 then call('HINCRBY', P .. 'counters', field, int(n)) end
  end
  counts = {}
end

local function setting(name, task)
  local value = task and call('HGET', P .. 'settings', name .. ':' .. task)
  value = value or call('HGET', P .. 'settings', name)
  return value and tonumber(value)
end
