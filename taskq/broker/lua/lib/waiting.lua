-- Messages that wait: which workers are told of them, putting ids into queues, suspects and the schedule.

-- What is known about which workers to tell.
local function known_of(table, field)
  local text = try('HGET', P .. table, field)
  return type(text) == 'string' and text or nil
end

-- The sets of workers that serve a queue, or the line at one of its gates: if nobody serves a queue any more that its task
-- once had, those that serve its queue now. The line of a task (#t) is served by those lanes of the same workers that run
-- it; if there are none and `anyone` may look: by all of them.
local function served_by(queue, gate, anyone)
  local sets, able = known_of('serving', queue) or '', ''
  if not gate then return sets end
  local task, kind = string.match(gate, '^([^#]*)#(.*)$')
  if sets == '' and find(known_of('homes', task) or '', ' ' .. queue .. ' ', 1, true) then
    sets = known_of('serving', known_of('tasks', task) or '') or ''
  end
  if kind ~= 't' then return sets end
  for set in string.gmatch(sets, '%S+') do
    local lanes = known_of('runs', set)
    if not lanes then able = able .. ' ' .. set end -- its workers do not say what they run: it may be this
    for lane, tasks in string.gmatch(lanes or '', '(%S+)( [^\n]*)') do
      if find(tasks, ' ' .. task .. ' ', 1, true) then able = able .. ' ' .. lane end
    end
  end
  return able == '' and anyone and sets or able
end

-- A queue that was empty, or the line at one of its gates, has something now: tell every set of workers that serves it.
local function announce(queue, now, gate, anyone)
  tell(served_by(queue, gate, anyone), gate and queue .. '|' .. gate or queue, now)
end

-- The same for messages that must run alone; the parents listen for these. `lanes`: only these are told.
local function announce_suspects(queue, now, lanes)
  for set in string.gmatch(lanes or served_by(queue), '%S+') do
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

-- Put an id into the schedule; if it is the earliest now, wake the process that waits for due times. A time of day ends
-- in half a millisecond: it stays when the server's clock is set back.
local function schedule(queue, id, due, of_day)
  call('ZADD', P .. 'schedule', int(due) .. (of_day and '.5' or ''), id)
  count(queue, 'scheduled', 1)
  if call('ZRANGE', P .. 'schedule', 0, 0)[1] == id then ring(P .. 'alarm') end
end
