--@include base
--@include held
--@include waiting
--@include ranked
--@include terminal
--@include unique
--@include gates
--@include places
-- Put right what stands in no place, in several, or in a place without a message: half-states that no script leaves, but
-- an operator's hand or a restored snapshot can. What is held by a worker stays with it, else what waits stays.
--
-- KEYS  1 prefix
-- ARGV  for each id: id, the key after the prefix where it was seen ('' for nowhere)
-- Returns for each id what was done: 'sound' (nothing), 'resurrected' (it stood nowhere: back to the end of its queue),
--       'deduplicated' (it stood in several places), 'dangling' (no message: the place was cleared), 'unreadable'
--       (a dead letter now).
-- Again: 'sound'.
local now = clock()
local verdicts = {}

-- The lines in which a message can stand: its own, and those of limits that its task has no more.
local known_gates
local function gates_for(task, found)
  known_gates = known_gates or call('HKEYS', P .. 'gates')
  local own, line = gates_of(task, found)
  local names = { line, unpack(own) }
  for _, name in ipairs(known_gates) do
    if sub(name, 1, #task + 1) == task .. '#' then names[#names + 1] = name end
  end
  return names
end

local function mend(id, seen)
  local value = call('HGET', P .. 'messages', id)
  local queue, task, _, flags, at = head(value)
  local gates = queue and gates_for(task, extras(value, flags, at)) or {}
  local places = places_of(id, queue, seen, gates)
  if value and #places == 1 then return 'sound' end
  if not value and #places == 0 then return 'sound' end
  begin_writes()
  for i = value and 2 or 1, #places do leave(id, places[i], queue) end
  local verdict = 'deduplicated'
  if not value then
    verdict = 'dangling'
    call('HDEL', P .. 'crashes', id)
    call('HDEL', P .. 'revoked', id)
    queue = places[1].queue
  elseif not queue then
    verdict, queue = 'unreadable', 'unreadable'
    if #places == 0 then bury('unreadable', id, now, 'unreadable', '') end
  elseif #places == 0 then
    verdict = 'resurrected'
    if call('HEXISTS', P .. 'crashes', id) == 1 then push_suspects(queue, { id }, now) else offer(queue, { id }, now) end
  end
  count(queue or '?', verdict)
  return verdict
end

for i = 1, #ARGV, 2 do verdicts[#verdicts + 1] = mend(ARGV[i], ARGV[i + 1]) end
write_counts()
return verdicts
