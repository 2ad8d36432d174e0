-- Messages that wait: bells, the names of ready queues, putting ids into queues, suspects and the schedule.

-- To pass word on must not end a script half-way: where one of the keys for it is of the wrong type, an operator's doing,
-- nobody is told, and the audit passes it on later.
local try = redis.pcall

-- Ring a bell that is silent.
local function ring(bell)
  if try('LLEN', bell) == 0 then try('RPUSH', bell, '1') end
end

-- The sets of workers that serve a queue, one after the other.
local function each_set(queue)
  local sets = try('HGET', P .. 'serving', queue)
  return string.gmatch(type(sets) == 'string' and sets or '', '%S+')
end

-- A queue that had nothing has something now, or the line at one of its gates: tell every set of workers that serves it.
local function announce(queue, now, gate)
  local line = gate and queue .. '|' .. gate or queue
  for set in each_set(queue) do
    try('ZADD', P .. 'ready:' .. set, 'NX', now, line)
    ring(P .. 'bell:' .. set)
  end
end

-- The same for messages that must run alone; the parents listen for these.
local function announce_suspects(queue, now)
  for set in each_set(queue) do
    try('ZADD', P .. 'solo:' .. set, 'NX', now, queue)
    ring(P .. 'solo-bell:' .. set)
  end
end

-- Put ids into a list: at its end, or in order at its head. Returns how long it is then.
local function put(key, ids, at_head)
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
  return total
end

-- Put ids (a list) into the plain list of a queue.
local function push(queue, ids, now, at_head)
  if #ids > 0 and put(P .. 'queue:' .. queue, ids, at_head) == #ids then announce(queue, now) end
end

local function push_suspects(queue, ids, now, at_head)
  put(P .. 'suspects:' .. queue, ids, at_head)
  announce_suspects(queue, now)
end

-- Put an id into the schedule; if it is the earliest now, wake whoever keeps the time.
local function schedule(queue, id, due)
  call('ZADD', P .. 'schedule', int(due), id)
  count(queue, 'scheduled', 1)
  if call('ZRANGE', P .. 'schedule', 0, 0)[1] == id then ring(P .. 'alarm') end
end
