-- Paused queues: nothing is taken from them, their suspects included, until they are resumed. A task in a queue that it
-- shares is paused by a gate of its own.

-- The field of `paused` for a name, and the queue to mark.
local function what_to_pause(name)
  local queue = call('HGET', P .. 'tasks', name)
  if not queue or queue == name then return name, name end
  return '=' .. name, queue
end

local function pause(name, now, ms, text)
  local field, queue = what_to_pause(name)
  call('HSET', P .. 'paused', field, int(now) .. ' ' .. (ms > 0 and int(now + ms) or '0') .. ' ' .. text)
  mark(queue, field == queue and 'p' or 'l', true)
  if ms == 0 then call('ZREM', P .. 'openings', '=' .. name)
  else
    call('ZADD', P .. 'openings', int(now + ms), '=' .. name)
    if call('ZRANGE', P .. 'openings', 0, 0)[1] == '=' .. name then ring(P .. 'alarm') end
  end
end

local function resume(name, now)
  local field, queue = what_to_pause(name)
  local was = call('HDEL', P .. 'paused', field)
  call('ZREM', P .. 'openings', '=' .. name)
  if field ~= queue then
    limits_of_task[name] = nil
    open(name .. '#p', now)
    return was
  end
  mark(queue, 'p', false)
  if waiting(queue) > 0 then announce(queue, now) end
  if call('LLEN', P .. 'suspects:' .. queue) > 0 then announce_suspects(queue, now) end
  for _, gate in ipairs(call('LPOP', P .. 'lines:' .. queue, 100000) or {}) do announce(queue, now, gate) end
  return was
end
