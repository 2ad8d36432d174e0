--@include base
--@include types
--@include waiting
--@include entries
-- Put the periodic entries of a worker's code in place, if the server has not seen that code before; take away those that
-- earlier code of the same source declared and this does not. Code seen before is older than what came after it, or
-- the very same, and changes nothing.
--
-- KEYS  1 prefix
-- ARGV  1 source (what -A was), 2 revision of the code (16 characters), 3 '1' to put it in place even if it was seen,
--       then name and entry of each
-- Returns {'new' | 'same' | 'old', name, 'added' | 'replaced' | 'removed', ...}; for code that changed nothing, what it
--       would have.
-- Again: it is the same code.
local source, revision, force = ARGV[1], ARGV[2], ARGV[3] == '1'
local now = clock()
local seen = call('HGET', P .. 'revisions', source) or ''
local code = not find(seen, revision, 1, true) and 'new' or sub(seen, -16) == revision and 'same' or 'old'
local putting = force or code == 'new'
local out, mine, changed = { code }, ' ', {}
for i = 4, #ARGV, 2 do
  local name = ARGV[i]
  local before = call('HGET', P .. 'periodic', name)
  if before ~= ARGV[i + 1] then
    out[#out + 1] = name
    out[#out + 1] = before and 'replaced' or 'added'
    changed[#changed + 1] = i
  end
  mine = mine .. name .. ' '
end
local others, gone = '', {}
local declared = call('HGETALL', P .. 'declared')
for i = 1, #declared, 2 do
  if declared[i] ~= source then others = others .. declared[i + 1] end
end
for name in string.gmatch(call('HGET', P .. 'declared', source) or '', '%S+') do
  local dropped = not find(mine, ' ' .. name .. ' ', 1, true) and not find(others, ' ' .. name .. ' ', 1, true)
  if dropped and call('HGET', P .. 'entry:' .. name, 'origin') == 'code' then
    out[#out + 1] = name
    out[#out + 1] = 'removed'
    gone[#gone + 1] = name
  end
end
if not putting then return out end
expect('hash', { 'periodic', 'declared', 'revisions' })
expect('zset', { 'ticks' })
begin_writes()
for _, i in ipairs(changed) do put_entry(ARGV[i], ARGV[i + 1], 'code', now) end
for _, name in ipairs(gone) do remove_entry(name) end
call('HSET', P .. 'declared', source, mine)
seen = string.gsub(seen, revision, '') .. ' ' .. revision
call('HSET', P .. 'revisions', source, sub(string.gsub(seen, '%s+', ' '), -1700)) -- the last hundred
return out
