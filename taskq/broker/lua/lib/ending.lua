-- The one way out. Every message ends here, so whatever must happen at every end belongs here.

-- Delete everything kept about these messages, except their results.
local function forget(ids)
  call('HDEL', P .. 'messages', unpack(ids))
  if rare == false then return end
  call('HDEL', P .. 'crashes', unpack(ids))
  call('HDEL', P .. 'revoked', unpack(ids))
end

-- Messages of a queue end: done, failed, discarded, purged, moved to another queue.
local function ended(queue, ids, how)
  forget(ids)
  count(queue, how, #ids)
end
