--@include base
--@include bells
--@include waiting
-- Take due ticks of periodic entries: send the message of each, and set the entry's next tick. Each is taken only if the
-- entry and its due time are what the caller saw, so of several callers one takes it.
--
-- KEYS  1 prefix
-- ARGV  for each tick: name of the entry, its revision, due ms as seen ('now': whatever is due, which stays),
--       id of the message ('' to send none), value, options as for enqueue, 1 to send only if the last message has ended,
--       tick ms, next tick ms ('' for none), its due ms, 1 if ticks were left out
-- Returns a character a tick: '+' sent, '-' sent, but no worker serves its queue, 's' not sent, since the last message
--       has not ended, 'u' not sent, since another message already does that unique work, '=' it had been sent before,
--       '.' there was nothing to send, '!' its queue is full, so it is due again in a second, 'x' not as seen, so nothing
--       was changed.
-- Again: not as seen.
local WIDTH, AGAIN = 11, 1000
local now = clock()
--@include accept
--@include expiry

local function alive(id)
  local value = id and call('HGET', P .. 'messages', id)
  if not value or expired(id, value, now) then return false end
  local queue = head(value)
  return not (queue and call('ZSCORE', P .. 'dead:' .. queue, id))
end

-- Look at a tick; all of this only reads.
local function look(i)
  local name, due, id = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local entry = call('HGET', P .. 'periodic', name)
  if not entry or sub(entry, 1, 16) ~= ARGV[i + 1] then return 'x' end
  if due ~= 'now' and tonumber(call('ZSCORE', P .. 'ticks', name) or '-1') ~= tonumber(due) then return 'x' end
  if id == '' then return '.' end
  if ARGV[i + 6] == '1' and alive(call('HGET', P .. 'entry:' .. name, 'id')) then return 's' end
  local answer = accept(id, ARGV[i + 4], ARGV[i + 5])
  return sub(answer, 1, 1) == $SAME and 'u' or answer
end

-- The tick stays the entry's next one; when it is late, the rule for missed ticks decides. `waits` keeps its first due
-- time.
local function put_off(i)
  local name, due, key = ARGV[i], ARGV[i + 2], P .. 'entry:' .. ARGV[i]
  if due == 'now' then return end
  if call('HSETNX', key, 'waits', due) == 1 then call('HINCRBY', key, 'full', 1) end
  call('ZADD', P .. 'ticks', int(now + AGAIN), name)
end

local function take(i, answer)
  local name, due, key = ARGV[i], ARGV[i + 2], P .. 'entry:' .. ARGV[i]
  local sent = answer == $ACCEPTED or answer == $UNSERVED
  if sent then
    call('HSET', key, 'last', ARGV[i + 7], 'id', ARGV[i + 3])
    call('HINCRBY', key, 'sent', 1)
  elseif answer == 's' or answer == 'u' then
    call('HINCRBY', key, 'skipped', 1)
  end
  if due == 'now' then return end
  local waits = call('HGET', key, 'waits')
  if waits then call('HDEL', key, 'waits') end
  if sent then
    due = waits or due
    local late = math.max(0, now - (ARGV[i + 10] == '1' and ARGV[i + 7] or due))
    call('HSET', key, 'late', int(late))
    if late > (tonumber(call('HGET', key, 'late-max') or '') or -1) then call('HSET', key, 'late-max', int(late)) end
  end
  if ARGV[i + 10] == '1' then call('HINCRBY', key, 'left-out', 1) end
  if ARGV[i + 8] == '' then
    call('HDEL', key, 'tick')
    call('ZREM', P .. 'ticks', name)
  else
    call('HSET', key, 'tick', ARGV[i + 8])
    call('ZADD', P .. 'ticks', ARGV[i + 9], name)
  end
end

local answers = {}
for i = 1, #ARGV, WIDTH do answers[#answers + 1] = look(i) end
if #batch.fields == 0 then begin_writes() end -- else the first write is one that a full server refuses
write_accepted()
for n, answer in ipairs(answers) do
  local i = (n - 1) * WIDTH + 1
  if answer == $FULL then put_off(i) elseif answer ~= 'x' then take(i, answer) end
end
write_counts()
return table.concat(answers)
