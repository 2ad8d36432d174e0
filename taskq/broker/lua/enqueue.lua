--@include base
--@include waiting
-- Accept messages: each into its queue or the schedule, or refused as a duplicate.
--
-- KEYS  1 prefix
-- ARGV  1 producer id, 2 its sequence number, then for each message: id, value, options
--       options is '' or words: w (say if nobody serves the queue), d<ms> (delay), a<ms> (due at), x<ms> (expires in),
--       e<ms> (expires at)
-- Returns a character a message: '+' accepted, '-' accepted but no live worker serves its queue, '=' duplicate.
-- Again: the same number with the same first id is answered as the first time and changes nothing.
local producer = P .. 'producer:' .. ARGV[1]
local seq = tonumber(ARGV[2])
local seen = call('GET', producer)
if seen then
  local last, reply, first = string.match(seen, '^(%d+) (%S*) (.*)$')
  if tonumber(last) == seq and first == ARGV[3] then return reply end
  if tonumber(last) >= seq then return redis.error_reply('TASKQ producer sequence went back') end
end
local now = clock()
local stamp = struct.pack('>d', now)
local reply, fields, queues, order, given = {}, {}, {}, {}, {}

-- Whether a message or a result of this id exists. Asked of ids made by taskq as well: a call that was given up, repeated
-- with its id and executed late all the same must not put the id into its queue a second time.
local function used(id)
  return given[id] or call('HEXISTS', P .. 'messages', id) == 1 or call('EXISTS', P .. 'result:' .. id) == 1
end

-- What the options of a message ask for: its answer, due time (ms) or nil, expiry stamp.
local function read_options(options, queue)
  local due, answer, expiry = nil, '+', ''
  for word, digits in string.gmatch(options, '(%a)(%d*)') do
    local n = tonumber(digits)
    if word == 'w' then
      if call('HEXISTS', P .. 'serving', queue) == 0 then answer = '-' end
    elseif word == 'd' then due = now + n
    elseif word == 'a' then due = n
    elseif word == 'x' then expiry = struct.pack('>d', now + n)
    elseif word == 'e' then expiry = struct.pack('>d', n)
    end
  end
  if due and due <= now then due = nil end
  return answer, due, expiry
end

for i = 3, #ARGV, 3 do
  local id, value, options = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local queue_at = 4 + byte(value, 3)
  local queue = sub(value, queue_at + 1, queue_at + byte(value, queue_at))
  local answer, due, expiry, flags = '+', nil, '', sub(value, 2, 2)
  if options ~= '' then
    answer, due, expiry = read_options(options, queue)
    if expiry ~= '' then flags = string.char(byte(flags) + 1) end
  end
  if used(id) then answer = '=' end
  given[id] = true
  reply[#reply + 1] = answer
  if answer ~= '=' then
    fields[#fields + 1] = id
    fields[#fields + 1] = sub(value, 1, 1) .. flags .. stamp .. expiry .. sub(value, 3)
    local place = queues[queue]
    if not place then
      place = { now = {}, later = {} }
      queues[queue] = place
      order[#order + 1] = queue
    end
    if due then
      place.later[#place.later + 1] = { id, due }
    else
      place.now[#place.now + 1] = id
    end
  end
end
if #fields > 0 then call('HSET', P .. 'messages', unpack(fields)) end
for _, queue in ipairs(order) do
  local place = queues[queue]
  for _, item in ipairs(place.later) do schedule(queue, item[1], item[2]) end
  if #place.now > 0 then push(queue, place.now, now) end
  count(queue, 'accepted', #place.now + #place.later)
end
write_counts()
reply = table.concat(reply)
call('SET', producer, int(seq) .. ' ' .. reply .. ' ' .. ARGV[3], 'EX', 3600)
return reply
