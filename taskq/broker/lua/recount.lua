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
-- Recompute what is derived from deliveries: the slots in use at gates, and whether the probe that a half-open breaker
-- waits for is still running. A breaker that its task no longer has is deleted.
--
-- KEYS  1 prefix
-- ARGV  gates
-- Returns how many were corrected.
-- Again: 0.
local now, wrong, held = clock(), 0, {}
expect_common()
for _, name in ipairs(ARGV) do held[name] = 0 end
for first = 0, call('ZCARD', P .. 'leases') - 1, 1000 do
  for _, inc in ipairs(call('ZRANGE', P .. 'leases', first, first + 999)) do
    for _, value in ipairs(call('HVALS', P .. 'processing:' .. inc)) do
      local _, _, _, gates = taken_from(value)
      for name in string.gmatch(gates, '[^\n]+') do
        if held[name] then held[name] = held[name] + 1 end
      end
    end
  end
end

-- Whether it was right.
local function put_right(name)
  local task = guarded_by(name)
  if not task then
    if used_at(name) == held[name] then return true end
    use(name, held[name] - used_at(name))
  elseif not limits_of(task).breaker then
    return call('HDEL', P .. 'breakers', task) == 0
  else
    if breaker_of(task) ~= 'h' or held[name] > 0 then return true end
    set_breaker(task, 'o', now, '')
  end
end

begin_writes()
for name in pairs(held) do
  if not put_right(name) then
    wrong = wrong + 1
    open(name, now)
  end
end
save_gates(now)
return wrong
