-- Paused queues: nothing is taken from them, their suspects included, until they are resumed. A task in a shared
-- queue is paused by a gate of its own, and so are messages that a task with its own queue has waiting in others.

-- The field of `paused` for a name.
local function what_to_pause(name)
  local queue = call('HGET', P .. 'tasks', name)
  return queue and queue ~= name and '=' .. name or name
end

local function pause(name, now, ms, text)
  local field = what_to_pause(name)
  call('HSET', P .. 'paused', field, int(now) .. ' ' .. (ms > 0 and int(now + ms) or '0') .. ' ' .. text)
  if field == name then mark(name, $MARK_PAUSED, true) end
  watch_controls()
  if ms == 0 then call('ZREM', P .. 'openings', '=' .. name)
  else
    call('ZADD', P .. 'openings', int(now + ms), '=' .. name)
    if call('ZRANGE', P .. 'openings', 0, 0)[1] == '=' .. name then ring(P .. 'alarm') end
  end
end

local function resume_queue(queue, now)
  if call('HDEL', P .. 'paused', queue) == 0 then return false end
  mark(queue, $MARK_PAUSED, false)
  if waiting(queue) > 0 then announce(queue, now) end
  if call('LLEN', P .. 'suspects:' .. queue) > 0 then announce_suspects(queue, now) end
  for _, line in ipairs(call('ZRANGE', P .. 'lines:' .. queue, 0, 99)) do announce(queue, now, line) end
  open_by_and_by(call('ZRANGE', P .. 'lines:' .. queue, 100, -1), now)
  call('DEL', P .. 'lines:' .. queue)
  return true
end

-- Both, since a worker may have changed the task's queue since it was paused. Returns 1 if either was paused.
local function resume(name, now)
  call('ZREM', P .. 'openings', '=' .. name)
  local a_task, a_queue = call('HDEL', P .. 'paused', '=' .. name) == 1, resume_queue(name, now)
  limits_of_task[name] = nil
  open(name .. '#p', now)
  watch_controls()
  return (a_task or a_queue) and 1 or 0
end
