--@include base
--@include types
--@include bells
--@include waiting
--@include entries
-- Put the periodic entries of a worker's code in place, if the server has not seen that code before; remove those that
-- earlier code of the same source declared but this code does not. Code seen before is older than what came after it, or
-- the very same, and changes nothing, except for entries of the newest code that were lost but are still known to other
-- keys.
--
-- KEYS  1 prefix
-- ARGV  1 source (what -A was), 2 revision of the code (16 characters), 3 '1' to put it in place even if it was seen,
--       4 since when its worker announces it (ms; '' if no worker asks), then name and entry of each
-- Returns {'new' | 'same' | 'old', name, 'added' | 'replaced' | 'removed' | 'restored', ...}; for code that changed nothing,
--       what it would have changed (but 'restored' has happened).
-- Again: it is the same code.
local source, revision, force, since = ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
local now = clock()
local seen = call('HGET', P .. 'revisions', source) or ''
local code = not find(seen, revision, 1, true) and 'new' or sub(seen, -16) == revision and 'same' or 'old'
local said = tonumber(call('HGET', P .. 'published', '@' .. source) or '') or 0
if since and code == 'new' and said >= since then code = said == since and 'same' or 'old' end -- `revisions` was lost
local out, mine, changed, lost, bare = { code }, ' ', {}, {}, {}
local function tell(name, what)
  out[#out + 1] = name
  out[#out + 1] = what
end

for i = 5, #ARGV, 2 do
  local name = ARGV[i]
  local before = call('HGET', P .. 'periodic', name)
  if code == 'same' and not before and call('HGET', P .. 'entry:' .. name, 'origin') == 'code' then
    lost[#lost + 1] = i
    tell(name, 'restored')
  elseif before ~= ARGV[i + 1] then
    changed[#changed + 1] = i
    tell(name, before and 'replaced' or 'added')
  end
  if code == 'same' and before and call('EXISTS', P .. 'entry:' .. name) == 0 then
    bare[#bare + 1] = name
    tell(name, 'restored')
  end
  mine = mine .. name .. ' '
end

-- What earlier code declared, but no code does any more.
local function dropped()
  local others, gone = '', {}
  local declared = call('HGETALL', P .. 'declared')
  for i = 1, #declared, 2 do
    if declared[i] ~= source then others = others .. declared[i + 1] end
  end
  for name in string.gmatch(call('HGET', P .. 'declared', source) or '', '%S+') do
    local is_dropped = not find(mine, ' ' .. name .. ' ', 1, true) and not find(others, ' ' .. name .. ' ', 1, true)
    if is_dropped and call('HGET', P .. 'entry:' .. name, 'origin') == 'code' then
      tell(name, 'removed')
      gone[#gone + 1] = name
    end
  end
  return gone
end

local gone = dropped()
if code == 'old' and not force then return out end
expect('hash', { 'periodic', 'declared', 'revisions', 'published' })
expect('zset', { 'ticks' })
begin_writes()
for _, i in ipairs(lost) do put_entry(ARGV[i], ARGV[i + 1], 'code', now) end
for _, name in ipairs(bare) do
  local due = tonumber(call('ZSCORE', P .. 'ticks', name) or '0')
  call('HSET', P .. 'entry:' .. name, 'origin', 'code', due > now and 'tick' or 'origin', due > now and int(due) or 'code')
end
call('HSET', P .. 'declared', source, mine)
if since then call('HSET', P .. 'published', '@' .. source, int(since)) end
if force or code == 'new' then
  for _, i in ipairs(changed) do put_entry(ARGV[i], ARGV[i + 1], 'code', now) end
  for _, name in ipairs(gone) do remove_entry(name) end
end
seen = string.gsub(seen, revision, '') .. ' ' .. revision
call('HSET', P .. 'revisions', source, sub(string.gsub(seen, '%s+', ' '), -1700)) -- the last hundred
return out
