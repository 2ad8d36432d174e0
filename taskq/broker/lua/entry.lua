--@include base
--@include types
--@include bells
--@include waiting
--@include entries
-- Change one periodic entry by command.
--
-- KEYS  1 prefix
-- ARGV  1 verb, 2 name, then for
--       define: the entry, '1' to replace one of that name   defined | replaced | exists
--       remove:                                              removed | unknown
--       pause:  who, when and why (opaque)                   paused | unknown
--       resume: its next tick is the next one from now       resumed | running | unknown
-- Returns one of the words beside the verb, for what happened; with unknown, exists and running nothing was changed.
-- Again: defines or pauses again; otherwise there is nothing left to do.
local verb, name = ARGV[1], ARGV[2]
expect('hash', { 'periodic', 'entry:' .. name })
expect('zset', { 'ticks' })
local key = P .. 'entry:' .. name
local there = call('HEXISTS', P .. 'periodic', name) == 1
if verb == 'define' then
  if there and ARGV[4] ~= '1' then return 'exists' end
  begin_writes()
  put_entry(name, ARGV[3], 'command', clock())
  return there and 'replaced' or 'defined'
end
if not there then return 'unknown' end
if verb == 'resume' and call('HEXISTS', key, 'paused') == 0 then return 'running' end
begin_writes()
if verb == 'remove' then
  remove_entry(name)
  return 'removed'
end
call('HDEL', key, 'tick', 'waits', verb == 'resume' and 'paused' or '')
if verb == 'pause' then
  call('ZREM', P .. 'ticks', name)
  call('HSET', key, 'paused', ARGV[3])
  return 'paused'
end
call('ZADD', P .. 'ticks', int(clock()), name)
ring(P .. 'alarm')
return 'resumed'
