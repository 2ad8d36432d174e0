--@include core
--@include bells
-- Accept messages: each into its queue or the schedule, or refused as a duplicate.
--
-- KEYS  1 prefix
-- ARGV  1 producer id, 2 its sequence number, then for each message: id, value, options
--       options is '' or words: w (say if nobody serves the queue), d<ms> (delay), a<ms> (due at), x<ms> (expires in),
--       e<ms> (expires at), m<n> (refuse if n wait in the queue)
-- Returns for each message a character: '+' accepted, '-' accepted but no live worker serves its queue, '=' duplicate id,
--       '!' the queue is full, '~', the id in hexadecimal digits, '.': that message already is this unique work.
-- Again: the same number with the same first id gets the same answer as the first time and changes nothing.
local producer, number, first = P .. 'producer:' .. ARGV[1], tonumber(ARGV[2]), ARGV[3]

-- The answer to a call that has been executed already.
local function answered(known)
  local last, reply, its_first = string.match(known, '^(%d+) (%S*) (.*)$')
  if tonumber(last) < number then return nil end
  if tonumber(last) == number and its_first == first then return reply end
  return redis.error_reply('TASKQ producer sequence went back')
end

-- A single message with nothing special: most calls. If a write cannot be done, the writes before it are undone.
local function accept_plain(id, value)
  local known = call('SET', producer, int(number) .. ' ' .. $ACCEPTED .. ' ' .. id, 'EX', 3600, 'GET')
  local function forget_call()
    if known then call('SET', producer, known, 'EX', 3600) else call('DEL', producer) end
  end
  local reply = known and answered(known)
  if reply then
    forget_call()
    return reply
  end
  local now, at = clock(), 4 + byte(value, 3)
  local queue, added = sub(value, at + 1, at + byte(value, at)), 0
  if call('EXISTS', P .. 'result:' .. id) == 0 then
    added = try('HSETNX', P .. 'messages', id, sub(value, 1, 2) .. struct.pack('>d', now) .. sub(value, 3))
  end
  if added == 0 then
    call('SET', producer, int(number) .. ' ' .. $DUPLICATE .. ' ' .. id, 'EX', 3600)
    return $DUPLICATE
  end
  local length = added == 1 and try('RPUSH', P .. 'queue:' .. queue, id) or added
  local counted = type(length) == 'number' and try('HINCRBY', P .. 'counters', queue .. '|accepted', 1) or length
  if type(counted) ~= 'number' then
    if type(length) == 'number' then call('RPOP', P .. 'queue:' .. queue) end
    if added == 1 then call('HDEL', P .. 'messages', id) end
    forget_call()
    return counted
  end
  local sets = length == 1 and try('HGET', P .. 'serving', queue)
  if type(sets) == 'string' then tell(sets, queue, now) end
  return $ACCEPTED
end
if #ARGV == 5 and ARGV[5] == '' and byte(ARGV[4], 2) < $FLAG_MORE then return accept_plain(first, ARGV[4]) end

--@include reading
--@include counting
--@include waiting
local seen = call('GET', producer)
local reply = seen and answered(seen)
if reply then return reply end
local now = clock()
--@include accept
reply = {}
for i = 3, #ARGV, 3 do reply[#reply + 1] = accept(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
write_accepted()
write_counts()
reply = table.concat(reply)
call('SET', producer, int(number) .. ' ' .. reply .. ' ' .. first, 'EX', 3600)
return reply
