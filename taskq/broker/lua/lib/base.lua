-- What every script begins with: the partition's prefix, the clock, reading a head, moving ids between places.
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

-- queue, task, accepted (ms), flags, or nothing if this is not a head (see taskq/envelope.py for the layout).
local function head(value)
  if not value or byte(value, 1) ~= 1 then return nil end
  local at = 11
  if (byte(value, 2) or 0) % 2 == 1 then at = 19 end
  local task_len = byte(value, at)
  local queue_at = task_len and at + 1 + task_len
  local queue_len = queue_at and byte(value, queue_at)
  if not queue_len or queue_at + queue_len > #value then return nil end
  return sub(value, queue_at + 1, queue_at + queue_len), sub(value, at + 1, queue_at - 1),
    (struct.unpack('>d', sub(value, 3, 10))), byte(value, 2)
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
end

-- Ring a bell that is silent.
local function ring(bell)
  if call('LLEN', bell) == 0 then call('RPUSH', bell, '1') end
end

-- A queue that had nothing has something now: tell every set of workers that serves it.
-- Returns whether there is one.
local function announce(queue, now)
  local sets = call('HGET', P .. 'serving', queue)
  if not sets then return false end
  for set in string.gmatch(sets, '%S+') do
    call('ZADD', P .. 'ready:' .. set, 'NX', now, queue)
    ring(P .. 'bell:' .. set)
  end
  return true
end

-- The same for messages that must run alone; the parents listen for these.
local function announce_suspects(queue, now)
  local sets = call('HGET', P .. 'serving', queue) or ''
  for set in string.gmatch(sets, '%S+') do
    call('ZADD', P .. 'solo:' .. set, 'NX', now, queue)
    ring(P .. 'solo-bell:' .. set)
  end
end

-- Put ids (a list) into a queue: at its end, or in order at its head.
local function push(queue, ids, now, at_head)
  local key = P .. 'queue:' .. queue
  local n, total = #ids, 0
  for first = 1, n, 1000 do
    local last = math.min(first + 999, n)
    if at_head then
      local reversed = {}
      for i = n - first + 1, n - last + 1, -1 do reversed[#reversed + 1] = ids[i] end
      total = call('LPUSH', key, unpack(reversed))
    else
      total = call('RPUSH', key, unpack(ids, first, last))
    end
  end
  if total == n then return announce(queue, now) end
  return true
end

local function push_suspects(queue, ids, now, at_head)
  local key = P .. 'suspects:' .. queue
  if at_head then
    for i = #ids, 1, -1 do call('LPUSH', key, ids[i]) end
  else
    call('RPUSH', key, unpack(ids))
  end
  announce_suspects(queue, now)
end

-- Put an id into the schedule; if it is the earliest now, wake whoever keeps the time.
local function schedule(queue, id, due)
  call('ZADD', P .. 'schedule', int(due), id)
  count(queue, 'scheduled', 1)
  if call('ZRANGE', P .. 'schedule', 0, 0)[1] == id then ring(P .. 'alarm') end
end

local function setting(name, task)
  local value = task and call('HGET', P .. 'settings', name .. ':' .. task)
  value = value or call('HGET', P .. 'settings', name)
  return value and tonumber(value)
end
