--@include base
--@include waiting
-- Accept messages: each into its queue or the schedule, or refused as a duplicate.
--
-- KEYS  1 prefix
-- ARGV  1 producer id, 2 its sequence number, then for each message: id, value, options
--       options is '' or words: w (say if nobody serves the queue), d<ms> (delay), a<ms> (due at), x<ms> (expires in),
--       e<ms> (expires at), m<n> (refuse if n wait in the queue)
-- Returns for each message a character: '+' accepted, '-' accepted but no live worker serves its queue, '=' duplicate id,
--       '!' the queue is full, '~', the id in hexadecimal digits, '.': unique work that this message is waiting or doing.
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
--@include accept
local reply = {}
for i = 3, #ARGV, 3 do reply[#reply + 1] = accept(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
write_accepted()
write_counts()
reply = table.concat(reply)
call('SET', producer, int(seq) .. ' ' .. reply .. ' ' .. ARGV[3], 'EX', 3600)
return reply
