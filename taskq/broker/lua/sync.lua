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
--@include revoking
-- After a call whose outcome is unknown: agree on which messages the caller holds. Raises the call number first, so that
-- a call still on its way cannot execute afterwards; then returns to their queues, uncounted, the messages this
-- incarnation holds and does not know of.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 new call number, 3 number of the lost call, then the ids it knows it holds
-- Returns {'lost'}, {'stale'}, or {1 if the lost call was executed else 0, ids it was wrong to believe it held ...}.
-- Again (its answer may be lost too), under a higher number: says the same of the lost call. For that a sync that found
-- it not executed leaves its number with a half.
local inc, number = ARGV[1], tonumber(ARGV[2])
local last = tonumber(call('HGET', P .. 'calls', inc) or '-1')
if last < 0 then return { 'lost' } end
if number <= last then return { 'stale' } end
local now = clock()
local executed = last >= tonumber(ARGV[3]) and last % 1 == 0
local known = {}
for i = 4, #ARGV do known[ARGV[i]] = true end
local processing = P .. 'processing:' .. inc
local flat = call('HGETALL', processing)
expect_common()
for i = 1, #flat, 2 do
  if not known[flat[i]] then expect_queue((taken_from(flat[i + 1]))) end
end
begin_writes()
call('HSET', P .. 'calls', inc, int(number) .. (executed and '' or '.5'))
local queues, accepted = {}, {}
for i = 1, #flat, 2 do
  local id = flat[i]
  if known[id] then
    known[id] = nil
  else
    local queue, suspect, taken_at, gates = taken_from(flat[i + 1])
    call('HDEL', processing, id)
    if end_revoked(queue, id, 'discarded') then -- it had not begun
    elseif suspect then
      push_suspects(queue, { id }, now, true)
    else
      accepted[id] = select(3, head(call('HGET', P .. 'messages', id))) or 0
      queues[queue] = queues[queue] or {}
      table.insert(queues[queue], id)
    end
    count(queue, 'returned')
    free(gates, taken_at, now)
  end
end
for queue, ids in pairs(queues) do
  table.sort(ids, function(a, b)
    if accepted[a] ~= accepted[b] then return accepted[a] < accepted[b] end
    return a < b
  end)
  for last = #ids, 1, -1000 do put_back(queue, { unpack(ids, math.max(last - 999, 1), last) }, now) end
end
save_gates(now)
write_counts()
local out = { executed and 1 or 0 }
for id in pairs(known) do out[#out + 1] = id end
return out
