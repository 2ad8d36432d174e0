-- The one way out. A message ends here, whatever its end is, so what is to follow every end belongs here.

-- Nothing is kept of these messages any more, but for their results.
local function forget(ids)
  call('HDEL', P .. 'messages', unpack(ids))
  if rare == false then return end
  call('HDEL', P .. 'crashes', unpack(ids))
  call('HDEL', P .. 'revoked', unpack(ids))
end

-- Messages of a queue end: done, failed, discarded, purged.
local function ended(queue, ids, how)
  forget(ids)
  count(queue, how, #ids)
end
