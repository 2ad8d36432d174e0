-- Whether a message has expired: its time to run is over, and it does not run.

local function is_over(value, now)
  return head(value) ~= nil and has_flag(byte(value, 2), $FLAG_EXPIRES) and struct.unpack('>d', sub(value, 11, 18)) <= now
end

local function expired(id, value, now)
  if not is_over(value, now) then return false end
  for _, inc in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
    if call('HEXISTS', P .. 'processing:' .. inc, id) == 1 then return false end
  end
  return true
end
