--@include base
--@include types
--@include held
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
-- Recompute what is derived from queues: the letters that say what is special about them, which sets of workers serve them,
-- and whether those have been told what can be taken.
--
-- KEYS  1 prefix
-- ARGV  for each queue: its name, '1' if a task with limits has it, the sets that serve it joined by spaces
-- Returns queue and what was missing, in turn: mark, serving, ready, solo.
-- Again: nothing.
local now, out = clock(), {}
expect_common()

local function restored(queue, what) out[#out + 1], out[#out + 2] = queue, what end

-- What is first in a queue, or among its suspects.
local function first_of(key) return call('LINDEX', P .. key, 0) end
local function what_of(id)
  local value = id and call('HGET', P .. 'messages', id)
  local _, task, _, flags, at = head(value)
  return task, task and extras(value, flags, at) or {}, flags or 0
end

local function restore_marks(queue, limited)
  local task, found, flags = what_of(first_of('queue:' .. queue) or call('ZRANGE', P .. 'ranked:' .. queue, 0, 0)[1])
  local ought = {
    p = call('HEXISTS', P .. 'paused', queue) == 1,
    r = marked(queue, $MARK_RANKED) or call('EXISTS', P .. 'ranked:' .. queue) == 1,
    l = marked(queue, $MARK_LIMITED) or limited or found[$FIELD_LIMITED] ~= nil,
    o = marked(queue, $MARK_ONCE) or (has_flag(flags, $FLAG_AT_MOST_ONCE) and (call('HGET', P .. 'tasks', task) or queue) ~= queue),
  }
  for letter, on in pairs(ought) do
    if marked(queue, letter) ~= on then
      mark(queue, letter, on)
      restored(queue, 'mark')
    end
  end
end

local function restore_serving(queue, sets)
  local there, kept = call('HGET', P .. 'serving', queue) or '', {}
  for set in string.gmatch(there .. ' ' .. sets, '%S+') do
    if not kept[set] and (call('HEXISTS', P .. 'sets', set) == 1 or call('ZSCORE', P .. 'set-leases', set)) then
      kept[#kept + 1], kept[set] = set, true
    end
  end
  local right = table.concat(kept, ' ')
  if right == there then return end
  if right == '' then call('HDEL', P .. 'serving', queue) else call('HSET', P .. 'serving', queue, right) end
  restored(queue, 'serving')
end

local function is_told(family, queue, sets)
  for set in string.gmatch(sets, '%S+') do
    if not call('ZSCORE', P .. family .. ':' .. set, queue) then return false end
  end
  return true
end
local function waits(gates, who)
  for _, name in ipairs(gates) do
    if has_line(name, who) then return true end
  end
end

-- Suspects: a lane that does not run the task of the first may have handed it on, and told only the lanes that do.
local function lanes_are_told(queue, task)
  local lanes = task and served_by(queue, task .. '#t') or ''
  return lanes ~= '' and is_told('solo', queue, lanes)
end

local function restore_words(queue)
  local sets = call('HGET', P .. 'serving', queue) or ''
  if waiting(queue) > 0 and not is_told('ready', queue, sets) and not waits(own_gates(queue), '*' .. queue) then
    announce(queue, now)
    restored(queue, 'ready')
  end
  local first = first_of('suspects:' .. queue)
  if not first or is_told('solo', queue, sets) then return end
  local task, found = what_of(first)
  if not lanes_are_told(queue, task) and not (task and waits(gates_of(task, found), '!' .. queue)) then
    announce_suspects(queue, now)
    restored(queue, 'solo')
  end
end

for i = 1, #ARGV, 3 do expect_queue(ARGV[i]) end
begin_writes()
for i = 1, #ARGV, 3 do
  restore_marks(ARGV[i], ARGV[i + 1] == '1')
  restore_serving(ARGV[i], ARGV[i + 2])
  if not marked(ARGV[i], $MARK_PAUSED) then restore_words(ARGV[i]) end
end
return out
