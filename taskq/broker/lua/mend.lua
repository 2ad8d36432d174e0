--@include base
--@include types
--@include held
--@include holder
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
--@include places
-- Mend messages that are in no place or in several, and ids in a place without a message: no script leaves such states,
-- but an operator's edit or a restored snapshot can. If a worker holds the message, that place stays; else one where it
-- waits.
--
-- KEYS  1 prefix
-- ARGV  1 '1' where there are many of them in all, then for each id: id, the key after the prefix where it was seen ('' for
--       nowhere)
-- Returns for each id what was done: 'sound' (nothing), 'resurrected' (it stood nowhere: back to the end of its queue, or a
--       dead letter again if it was one), 'deduplicated' (it stood in several places), 'dangling' (no message: the place was
--       cleared), 'unreadable' (a dead letter now), 'lined up' (no gate knew its line). For fewer ids than asked
--       if they are much work, but for at least one.
-- Again: 'sound'.
local ENOUGH = 50000 -- about five milliseconds
many = ARGV[1] == '1'
local now = clock()
local verdicts, seen_before = {}, {}

-- The lines in which a message can stand: its own, and those of limits that its task no longer has.
local known_gates
local function gates_for(task, found)
  if not known_gates then
    known_gates = call('HLEN', P .. 'gates') <= 1000 and call('HKEYS', P .. 'gates') or {}
  end
  local own, line = gates_of(task, found)
  local names = { line, unpack(own) }
  for _, name in ipairs(known_gates) do
    if sub(name, 1, #task + 1) == task .. '#' then names[#names + 1] = name end
  end
  return names
end

local function resurrect(queue, id)
  if call('HEXISTS', P .. 'reasons', id) == 1 then call('ZADD', P .. 'dead:' .. queue, int(now), id)
  elseif call('HEXISTS', P .. 'crashes', id) == 1 then push_suspects(queue, { id }, now)
  else offer(queue, { id }, now)
  end
end

-- Whether the gate of a line in which a message stands knows of that line.
local function is_lined_up(place)
  local queue, gate = string.match(place.key, '^%a+:([^|]*)|(.*)$')
  if not gate or has_line(gate, queue) then return true end
  begin_writes()
  wait_at(gate, queue, select(2, room(gate, now)))
  open(gate, now)
  return false
end

local function mend(id, seen)
  local value = call('HGET', P .. 'messages', id)
  local queue, task, _, flags, at = head(value)
  local gates = queue and gates_for(task, extras(value, flags, at)) or {}
  local places = places_of(id, queue, seen, gates)
  if value and #places == 1 then return is_lined_up(places[1]) and 'sound' or 'lined up' end
  if not value and #places == 0 then return 'sound' end
  begin_writes()
  for i = value and 2 or 1, #places do leave(id, places[i], queue) end
  local verdict = 'deduplicated'
  if not value then
    verdict = 'dangling'
    forget({ id })
    queue = places[1].queue
  elseif not queue then
    verdict, queue = 'unreadable', 'unreadable'
    if #places == 0 then bury('unreadable', id, now, 'unreadable', '') end
  elseif #places == 0 then
    verdict = 'resurrected'
    resurrect(queue, id)
  end
  if queue then count(queue, verdict) end
  return verdict
end

expect_common()
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  -- What a list holds is not read again after it was changed for another id; for the same it must be.
  if seen_before[id] and many then break end
  seen_before[id] = true
  verdicts[#verdicts + 1] = mend(id, ARGV[i + 1])
  looked = looked + 50
  if looked > ENOUGH then break end
end
write_counts()
return verdicts
