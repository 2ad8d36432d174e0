-- Lines: messages that may not pass their gates wait in a line of their queue, in order: a list, and a sorted set of those
-- with a rank. A line waits where its first message does. At a gate with keys it is told by its own name when the gate
-- opens. At gates that all messages of a task share, the lines of its keys wait as a group, in the order of their first
-- messages, so that opening a gate costs the same however many lines there are. A group is named '~' and the task; or, of
-- a key that several lines have, '~' and its gate. (In what is ready it comes after the lines, which may join it.)

local function set_waiters(name, waiters)
  anybody_in_line, waiters_at[name] = true, waiters == ' ' and '' or waiters
  if waiters == ' ' then call('HDEL', P .. 'gates', name) else call('HSET', P .. 'gates', name, waiters) end
end

local function has_line(name, queue) return find(waits_at(name), ' ' .. queue .. ' ', 1, true) ~= nil end

local function opens_at(name, time)
  call('ZADD', P .. 'openings', int(math.ceil(time)), name)
  if call('ZRANGE', P .. 'openings', 0, 0)[1] == name then ring(P .. 'alarm') end
end

local function wait_at(name, who, opens)
  local waiters = waits_at(name)
  if not find(waiters, ' ' .. who .. ' ', 1, true) then
    set_waiters(name, (waiters == '' and ' ' or waiters) .. who .. ' ')
  end
  if opens then opens_at(name, opens) end
end

local function leave_line(name, queue)
  local waiters = waits_at(name)
  local at, stop = find(waiters, ' ' .. queue .. ' ', 1, true)
  if at then set_waiters(name, sub(waiters, 1, at) .. sub(waiters, stop + 1)) end
end

local function group_of(name)
  local task, keyed = string.match(name, '^([^#]*)#%w+(=?)')
  return '~' .. (keyed == '=' and name or task or name)
end

-- The first of these gates that is closed, or at which others of the queue wait already; and when it opens.
local function closed_gate(names, queue, now)
  for _, name in ipairs(names) do
    local n, opens = room(name, now)
    if n < 1 or (queue and anybody_in_line and (has_line(name, queue) or has_line(group_of(name), queue))) then
      return name, opens
    end
  end
end

-- The first message of a line, and its rank if it has one; nil if the line is empty.
local function first_of(queue, line)
  local list, first = 'gated:' .. queue .. '|' .. line, nil
  if marked(queue, $MARK_RANKED) then
    first = call('ZRANGE', P .. 'ranked:' .. queue .. '|' .. line, 0, 0, 'WITHSCORES')
    local rank = tonumber(first[2])
    if rank and (rank < 0 or call('EXISTS', P .. list) == 0) then return first[1], rank end
  end
  return call('LINDEX', P .. list, 0) or nil
end

-- Where a message stands among those of all lines: by its rank, or, between those above and below, by its age.
local function place_of(rank, value) return rank or (select(3, head(value)) or 0) - 2 ^ 43 end

-- Whether a line is told by its name when this gate opens: no other line of its queue waits there. That of a task (#t)
-- always is, whatever it waits for: only those that run the task take from it.
local function is_told(line, name)
  return sub(line, -2) == '#t' or name == line and (find(name, '=', 1, true) or not limits_of(string.match(name, '^[^#]*')).keyed)
end

-- A line whose first message may not pass a gate waits there. If the gate is open it only waits behind others, which may be
-- gone.
local function line_waits(queue, line, name, opens, place, now)
  local who = line
  wait_at(line, queue)
  if opens then opens_at(name, opens) end
  if not is_told(line, name) then
    who = group_of(name)
    call('ZADD', P .. 'heads:' .. queue .. '|' .. who, string.format('%.3f', place), line)
    wait_at(who, queue)
  end
  if not opens and room(name, now) >= 1 then announce(queue, now, who) end
end

-- A gate may let something pass again: tell the workers that can take what waits at it. Lines and groups stay, queues go
-- on.
local function open(name, now)
  local lines, group, task = ' ', group_of(name), string.match(name, '^[^#]*') .. '#t'
  for who in string.gmatch(waits_at(name), '%S+') do
    local first = sub(who, 1, 1)
    if first == '*' then announce(sub(who, 2), now)
    elseif first == '!' then announce_suspects(sub(who, 2), now)
    else
      announce(who, now, name, true)
      lines = lines .. who .. ' '
    end
  end
  if waits_at(name) ~= '' and lines ~= waits_at(name) then set_waiters(name, lines) end
  for who in string.gmatch(waits_at(group), '%S+') do announce(who, now, group) end
  for who in string.gmatch(name ~= task and waits_at(task) or '', '%S+') do announce(who, now, task, true) end
end

-- Deliveries that passed these gates at a time have ended: free their slots, tell their breakers; their locks go if these
-- were their last deliveries. save_gates() follows.
local function free(gates, taken_at, now, failed, times)
  for name in string.gmatch(gates, '[^\n]+') do
    local guarded = guarded_by(name)
    if byte(name) == 42 then
      release(sub(name, 2), now)
    else
      if guarded then
        for _ = 1, times or 1 do record(guarded, failed, now, tonumber(taken_at)) end
      elseif used_at(name) > 0 then
        use(name, -(times or 1))
      end
      if anybody_in_line then open(name, now) end
    end
  end
end

-- Put a message into a line: at its end, at its head, or where its rank belongs.
local function stand(queue, line, id, rank, at_head)
  local name = queue .. '|' .. line
  if rank then call('ZADD', P .. 'ranked:' .. name, int(rank), id)
  else call(at_head and 'LPUSH' or 'RPUSH', P .. 'gated:' .. name, id)
  end
  mark(queue, $MARK_LIMITED, true) -- so that later messages queue behind it, whatever becomes of the limit
  count(queue, 'gated')
end

-- Work that was unique until its start and comes back unstarted is unique again, or superseded by a later message. Returns
-- whether it is superseded.
local function superseded(queue, id, value, now)
  local _, _, _, flags, at = head(value)
  local found = extras(value, flags or 0, at)
  if not found[$FIELD_LOCK] or lock_again(found, id, now) then return false end
  discard(queue, id, 'discarded', 'superseded')
  return true
end

-- Whether the keys of a line have the right types: messages that cannot go there go to their queue.
local function is_sound(queue, line)
  local name = queue .. '|' .. line
  return tonumber(try('LLEN', P .. 'gated:' .. name)) and tonumber(try('ZCARD', P .. 'ranked:' .. name))
end

-- Messages that were taken but not started go to the head of their queue, or of their line if it exists; or to the end of
-- another line, or `first` in that.
local function put_back(queue, ids, now, other, first)
  if not marked(queue, $MARK_LIMITED) then return offer(queue, ids, now, true) end
  for i = #ids, 1, -1 do
    local value = call('HGET', P .. 'messages', ids[i])
    local _, task, _, flags, at = head(value)
    local found = extras(value, flags or 0, at)
    local names, line = {}, nil
    if task then names, line = gates_of(task, found) end
    if superseded(queue, ids[i], value, now) then -- gone
    elseif other then
      stand(queue, other, ids[i], nil, first)
      announce(queue, now, other)
    elseif line and has_line(line, queue) and is_sound(queue, line) then
      local rank = (found[$FIELD_PRIORITY] or found[$FIELD_FAIR]) and rank_of(queue .. '|' .. line, found, true, { first = {} })
      stand(queue, line, ids[i], rank, true)
      local name, opens = closed_gate(names, nil, now)
      if first_of(queue, line) ~= ids[i] then -- the line waits already, for what it did
      elseif name then line_waits(queue, line, name, opens, place_of(rank, value), now) else announce(queue, now, line) end
    else
      offer(queue, { ids[i] }, now, true)
    end
  end
end

-- Gates, lines and groups that look again, as if their time had come: a few in each call that promotes.
local function open_by_and_by(names, now)
  for i = 1, #names, 500 do
    local words = {}
    for k = i, math.min(i + 499, #names) do words[#words + 1], words[#words + 2] = int(now), names[k] end
    call('ZADD', P .. 'openings', unpack(words))
  end
  if names[1] then ring(P .. 'alarm') end
end

-- The limits of a task have changed: whatever waits at one of its gates looks again. Returns how many gates there are.
local function open_all(task, now)
  limits_of_task[task] = nil
  if not limits_of(task).breaker then call('HDEL', P .. 'breakers', task) end
  local n, later = 0, {}
  for _, name in ipairs(call('HKEYS', P .. 'gates')) do
    if sub(name, 1, #task + 1) == task .. '#' then
      n = n + 1
      if n <= 100 then open(name, now) else later[#later + 1] = name end
    end
  end
  for who in string.gmatch(waits_at('~' .. task), '%S+') do announce(who, now, '~' .. task) end
  open_by_and_by(later, now)
  return n
end
