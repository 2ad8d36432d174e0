--@include base
--@include types
--@include bells
--@include waiting
-- Give periodic entries that have lost the time of their next tick that time back.
--
-- KEYS  1 prefix
-- ARGV  names of entries
-- Returns how many got it.
-- Again: 0.
local now, roused = clock(), 0
expect('hash', { 'periodic' })
expect('zset', { 'ticks' })
begin_writes()
for _, name in ipairs(ARGV) do
  local key = P .. 'entry:' .. name
  local ticks = call('HEXISTS', P .. 'periodic', name) == 1 and call('HEXISTS', key, 'paused') == 0
  if ticks and not call('ZSCORE', P .. 'ticks', name) then
    local due = call('HGET', key, 'waits') or call('HGET', key, 'tick')
    if not due and call('HEXISTS', key, 'last') == 0 then due = int(now) end -- a new one; else it has had its last
    if due then
      call('ZADD', P .. 'ticks', due, name)
      ring(P .. 'alarm')
      roused = roused + 1
    end
  end
end
return roused
