-- Messages that wait: bells, the names of ready queues, putting ids into queues, suspects and the schedule.

-- Ring a bell that is silent.
local function ring(bell)
  if call('LLEN', bell) == 0 then call('RPUSH', bell, '1') end
end

-- The sets of workers that serve a queue, or the line at one of its gates: if nobody serves a queue any more that its task once
-- had, those that serve the one it has now. The line of a task (#t) is served by those lanes of the same workers that run it;
-- if there are none and `anyone` is to look: by all of them.
local function served_by(queue, gate, anyone)
  local sets, able = call('HGET', P .. 'serving', queue) or '', ''
  if not gate then return sets end
  local task, kind = string.match(gate, '^([^#]*)#(.*)$')
  if sets == '' and find(call('HGET', P .. 'homes', task) or '', ' ' .. queue .. ' ', 1, true) then
    sets = call('HGET', P .. 'serving', call('HGET', P .. 'tasks', task) or '') or ''
  end
  if kind ~= 't' then return sets end
  for set in string.gmatch(sets, '%S+') do
    local lanes = call('HGET', P .. 'runs', set)
    if not lanes then able = able .. ' ' .. set end -- its workers do not tell what they run: it may be this
    for lane, tasks in string.gmatch(lanes or '', '(%S+)( [^\n]*)') do
      if find(tasks, ' ' .. task .. ' ', 1, true) then able = able .. ' ' .. lane end
    end
  end
  return able == '' and anyone and sets or able
end

-- A queue that had nothing has something now, or the line at one of its gates: tell every set of workers that serves it.
local function announce(queue, now, gate, anyone)
  local line = gate and queue .. '|' .. gate or queue
  for set in string.gmatch(served_by(queue, gate, anyone), '%S+') do
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

-- Put ids (a list) into the plain list of a queue: at its end, or in order at its head.
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
  if n > 0 and total == n then announce(queue, now) end
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
