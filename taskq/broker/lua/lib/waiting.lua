-- Messages that wait: bells, the names of ready queues, putting ids into queues, suspects and the schedule.

-- Ring a bell that is silent.
local function ring(bell)
  if call('LLEN', bell) == 0 then call('RPUSH', bell, '1') end
end

-- A queue that had nothing has something now, or the line at one of its gates: tell every set of workers that serves it.
local function announce(queue, now, gate)
  local line = gate and queue .. '|' .. gate or queue
  for set in string.gmatch(call('HGET', P .. 'serving', queue) or '', '%S+') do
    call('ZADD', P .. 'ready:' .. set, 'NX', now, line)
    ring(P .. 'bell:' .. set)
  end
end

-- The same for messages that must run alone; the parents listen for these.
local function announce_suspects(queue, now)
  local sets = call('HGET', P .. 'serving', queue) or ''
  for set in string.gmatch(sets, '%S+') do
    call('ZADD', P .. 'solo:' .. set, 'NX', now, queue)
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
