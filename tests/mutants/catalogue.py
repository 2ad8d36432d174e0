"""The faults to plant: each one replacement in one file, the kind of slip that a refactoring makes.

``fencing`` marks those that let a presumed-dead worker, or a call that was given up, change something: they must be
caught by a directed test, since random runs seldom get there. ``tests`` are the directed tests beside `DIRECTED` that a
mutant is about.
"""

from __future__ import annotations

from dataclasses import dataclass

DIRECTED = ("tests/contract", "tests/model/test_directed.py")
MODEL = (
    "tests/simulation",
    "tests/model/test_exhaustive.py",
    "tests/model/test_machine.py",
    "tests/model/test_flow_machine.py",
)

_KILLS = "tests/faults/test_kills.py::"
_PERIODIC = ("tests/unit/test_periodic.py", "tests/unit/test_entries.py")
_LIMITS = "tests/integration/test_limits.py::"
_HOOKS, _MIDDLEWARE = "tests/unit/test_hooks.py", "tests/integration/test_middleware.py::"
_HANGS = "test_a_hook_that_hangs_keeps_no_message_and_no_stop"
_TELLS = "        if self.executor.told:\n            await self._tell_hooks(delivery)\n"
_LIFECYCLE = "tests/integration/test_lifecycle.py::"
_LANES, _HEARTBEAT = "tests/model/test_lane.py", "tests/model/test_heartbeat.py"


@dataclass(frozen=True)
class Mutant:
    """One fault: ``old`` in ``taskq/<file>`` becomes ``new``."""

    name: str
    file: str
    old: str
    new: str
    fencing: bool = False
    tests: tuple[str, ...] = ()


def lua(name: str, script: str, old: str, new: str = "", fencing: bool = False) -> Mutant:
    """A fault in a script."""
    return Mutant(name, f"broker/lua/{script}.lua", old, new, fencing)


def py(name: str, file: str, old: str, new: str = "", *tests: str, fencing: bool = False) -> Mutant:
    """A fault in a module."""
    return Mutant(name, f"{file}.py", old, new, fencing, tests)


MUTANTS = [
    # -- the plain way, and what is sent ahead
    lua("a plain message is accepted twice", "enqueue", "if added == 0 then", "if added == -1 then", True),
    lua(
        "a plain message is accepted again after its end",
        "enqueue",
        "if call('EXISTS', P .. 'result:' .. id) == 0 then",
        "if true then",
    ),
    lua(
        "a plain call that failed is taken for done",
        "enqueue",
        "    forget_call()\n    return counted",
        "    return counted",
    ),
    lua(
        "a repeated plain call forgets what it was",
        "enqueue",
        "  if reply then\n    forget_call()\n",
        "  if reply then\n",
    ),
    lua(
        "a plain message is not announced",
        "enqueue",
        "  if type(sets) == 'string' then tell(sets, queue, now) end\n",
        "",
    ),
    lua(
        "a plain message that could not be counted is kept",
        "enqueue",
        "    if added == 1 then call('HDEL', P .. 'messages', id) end\n",
        "",
    ),
    lua(
        "a call sent ahead follows one that failed", "fetch", "ARGV[5] == 'next' and number ~= last + 1", "false", True
    ),
    lua(
        "what cannot be held is lost",
        "lib/take",
        "if type(kept) == 'table' then return flow.undo_take(key, ids, kept.err) end",
        "if type(kept) == 'table' then error(kept.err) end",
    ),
    lua(
        "what cannot be read is lost",
        "lib/take",
        "if values.err then return flow.undo_take(key, ids, values.err) end",
        "if values.err then error(values.err) end",
    ),
    lua(
        "what could not end is counted",
        "lib/done",
        "call('HINCRBY', P .. 'counters', taken_from(value) .. '|done', -times)",
        "find('', '')",
    ),
    lua(
        "a queue is looked at again and again in one fetch",
        "lib/take",
        "    if looked_at[line] then",
        "    if false then",
    ),
    py(
        "a connection gives the answer of another command",
        "broker/net/connection",
        "if self._ahead is not None and not sent:",
        "if False:",
        "tests/contract/test_ahead.py",
    ),
    py(
        "what was taken ahead is not looked for",
        "worker/child/session",
        "self.doubtful or (sent is not None and not wait)",
        "self.doubtful",
        "tests/unit/test_session.py",
    ),
    # -- fetch: settling
    lua(
        "an unregistered incarnation may speak",
        "fetch",
        "if not last then return { 'lost' } end",
        "last = last or '0'",
        True,
    ),
    lua("a late call may speak", "fetch", "if number <= tonumber(last) or", "if false or", True),
    lua("the same call may speak twice", "fetch", "if number <= tonumber(last)", "if number < tonumber(last)", True),
    lua(
        "a fetch does not raise the call number",
        "fetch",
        "if not settles then first_write('HSET', P .. 'calls', inc, number) end",
        "",
        True,
    ),
    lua(
        "a success needs no ownership",
        "lib/done",
        "local function settle_done(blob, ttl, first_result, n_results)",
        "local function settle_done(blob, ttl, first_result, n_results)\n"
        "for i = 1, #blob, 16 do call('HSETNX', processing, sub(blob, i, i + 15), '0 q') end",
        True,
    ),
    lua(
        "another end needs no ownership",
        "lib/settle",
        "local value = call('HGET', processing, id)",
        "local value = call('HGET', processing, id) or '0 q'",
        True,
    ),
    lua("what is settled stays in processing", "lib/settle", "call('HDEL', processing, id)"),
    lua("successes stay in processing", "lib/done", "else call('HDEL', run.processing, unpack(mine)) end", "end"),
    lua("successes stay in messages", "lib/ending", "  call('HDEL', P .. 'messages', unpack(ids))\n", ""),
    lua("successes keep their crashes", "lib/ending", "  call('HDEL', P .. 'crashes', unpack(ids))\n", ""),
    lua("results go to the wrong ids", "lib/done", "ARGV[first_result + i - 1]", "ARGV[first_result + i]"),
    lua(
        "a return goes to the tail",
        "lib/settle",
        "elseif marks(queue) == '' then push(queue, { id }, now, true)",
        "elseif marks(queue) == '' then push(queue, { id }, now)",
    ),
    lua(
        "a returned suspect is in company again",
        "lib/settle",
        "if byte(value, 1) == 33 then",
        "if false then",
    ),
    lua(
        "a retried suspect is in company again",
        "lib/settle",
        "elseif call('HEXISTS', P .. 'crashes', id) == 1 then",
        "elseif false then",
    ),
    lua("a retry keeps its old value", "lib/settle", "call('HSET', messages, id, ARGV[i + 2])"),
    # -- fetch: handing on
    lua(
        "what is handed on goes to whoever serves the queue",
        "lib/waiting",
        "if kind ~= 't' then return sets end",
        "if true then return sets end",
    ),
    lua(
        "what is handed on stays ready for who did so",
        "lib/special",
        "call('ZREM', P .. 'ready:' .. set, queue .. '|' .. name)",
    ),
    lua(
        "what was handed on before goes to the end",
        "lib/special",
        "put_back(queue, { id }, now, name, again)",
        "put_back(queue, { id }, now, name)",
    ),
    lua(
        "nobody looks at what nobody knows",
        "lib/special",
        "call('ZADD', P .. 'openings', 'LT', int(math.ceil(opens)), name)",
    ),
    lua("what comes later passes the line of its task", "lib/gates", "if line_left(task, 't') then", "if false then"),
    lua(
        "what runs at most once is taken with others",
        "lib/special",
        "local careful = marked(queue, 'o')",
        "local careful = false",
    ),
    lua(
        "what runs at most once is taken with others from a line",
        "lib/special",
        "  if run.outs > 3 then return 0, true, true end\n",
        "",
    ),
    py(
        "a lane runs what is another's",
        "runs/execution",
        "if task.name not in self._only:",
        "if False:",
        "tests/unit/test_execution.py",
    ),
    # -- queues that nobody serves
    lua("what was sent elsewhere on purpose is taken", "adopt", "if queue ~= task and (", "if false and ("),
    lua(
        "a task that nobody knows is given up at once",
        "adopt",
        "return now - since >= patience and now - accepted >= patience",
        "return true",
    ),
    lua("time in which nobody looked counts", "adopt", "now - last > patience + 300000", "false"),
    lua("a task that others know is given up", "adopt", "find(everything, ' ' .. task .. ' ', 1, true)", "false"),
    lua("a queue that is served is looked through", "adopt", "call('HEXISTS', P .. 'serving', ARGV[i]) == 0", "true"),
    # -- fetch: taking
    lua(
        "messages are taken from the wrong end",
        "lib/take",
        "local ids = call('LPOP', key, n)\n  if not ids",
        "local ids = call('RPOP', key, n)\n  if not ids",
    ),
    lua("what is taken is not held", "lib/take", "f > 0 and try('HSET', run.processing, unpack(fields))", "false"),
    lua("a fetch does not promote", "fetch", "attempt(flow.promote, now, 100)", "rare = rare"),
    lua("a queue with more is not ready", "lib/take", "    if more then\n", "    if false then\n"),
    lua("what a queue took is not charged", "lib/take", "charge(queue, got * ms)", "charge(queue, 0)"),
    lua("a queue is charged by the message", "lib/take", "charge(queue, got * ms)", "charge(queue, got)"),
    lua(
        "who had nothing saves up", "lib/shares", "math.max(tonumber(known[2]) or 0, lowest)", "tonumber(known[2]) or 0"
    ),
    lua("weights of queues count for nothing", "lib/shares", "its.at + ms / its.weight", "its.at + ms"),
    lua(
        "an account is forgotten when its queue is empty",
        "lib/shares",
        "tonumber(score) >= from",
        "tonumber(score) < LATER or tonumber(score) >= from",
    ),
    lua("the bell is not passed on", "fetch", "if some_left and try(", "if false and try("),
    lua(
        "a wait in vain repairs nothing", "fetch", "(run.mode == 'repair' or run.mode == 'next')", "run.mode == 'mend'"
    ),
    lua(
        "a suspect is taken as any other", "lib/special", "'!' .. int(now) .. ' ' .. queue", "int(now) .. ' ' .. queue"
    ),
    lua(
        "suspects behind one are forgotten",
        "lib/special",
        "if gone > 0 and call('LLEN', key) > 0 then",
        "if false then",
    ),
    lua(
        "a suspect is given to a lane that does not run it",
        "lib/special",
        "if lanes ~= '' and not find(",
        "if false and find(",
    ),
    lua(
        "who runs a suspect is not told of it",
        "lib/special",
        "then return announce_suspects(queue, now, lanes) end",
        "then return end",
    ),
    lua("a suspect that nobody runs is given to nobody", "lib/special", "if lanes ~= '' and not find(", "if not find("),
    lua("a lane looks at one suspect alone", "lib/special", "'LRANGE', key, 0, 31", "'LRANGE', key, 0, 0"),
    lua("a fetch takes one more than wanted", "lib/take", "math.min(left, room_for)", "math.min(left + 1, room_for)"),
    # -- what scripts share
    lua("a queue that fills is not announced", "lib/waiting", "== #ids then announce", "== 0 then announce"),
    lua(
        "a head is pushed in reverse",
        "lib/waiting",
        "for i = n - first + 1, n - last + 1, -1 do",
        "for i = n - last + 1, n - first + 1 do",
    ),
    lua(
        "suspects are pushed at the tail",
        "lib/waiting",
        "put(P .. 'suspects:' .. queue, ids, at_head)",
        "put(P .. 'suspects:' .. queue, ids)",
    ),
    lua(
        "bells collect tokens",
        "lib/bells",
        "if try('RPUSH', bell, '1') ~= 1 then try('LPOP', bell) end",
        "try('RPUSH', bell, '1')",
    ),
    lua(
        "an earlier due time wakes nobody",
        "lib/waiting",
        "== id then ring(P .. 'alarm') end",
        "== id then counts = counts end",
    ),
    lua("suspects are announced in silence", "lib/waiting", "    ring(P .. 'solo-bell:' .. set)\n"),
    lua("counters are not written", "lib/counting", "if n ~= 0 then call('HINCRBY'", "if n == 0 then call('HINCRBY'"),
    lua("a full server cannot be drained", "lib/core", "call('DEL', P .. 'none')", "counts = counts"),
    # -- promotion
    lua(
        "what is promoted stays in the schedule", "lib/promote", "call('ZREMRANGEBYRANK', P .. 'schedule', 0, #ids - 1)"
    ),
    lua(
        "a promoted suspect is in company again",
        "lib/promote",
        "head(values[i]), crashed[i] and suspects or queues",
        "head(values[i]), queues",
    ),
    lua("what is promoted still counts as scheduled", "lib/promote", "count(queue, 'scheduled', -#list);", ";"),
    lua(
        "messages are promoted early",
        "lib/promote",
        "'-inf', int(math.ceil(now)), 'LIMIT', 0, limit",
        "'-inf', int(now + 20000), 'LIMIT', 0, limit",
    ),
    lua("the wrong one keeps the time", "promote", "who ~= ARGV[1]", "who == ARGV[1]"),
    lua("a keeper never expires", "promote", ", 'PX', int(wait + 1000))", ")"),
    lua("a keeper that has been here is relied on", "promote", "call('DEL', keeper)", "who = nil"),
    lua("a keeper that comes too late is kept", "promote", "tonumber(until_) <= due and ", ""),
    # -- the pulse
    lua("after a silence everybody is reaped", "lib/pulse", "elseif now - last > shortest / 2", "elseif false"),
    lua(
        "leases are not clamped when the clock went back",
        "lib/pulse",
        "    if back then\n      put",
        "    if false then\n      put",
    ),
    lua(
        "gates stay shut when the clock went back",
        "lib/pulse",
        "move(key, by, function(name)",
        "move('none', by, function(name)",
    ),
    lua(
        "timed pauses end early when the clock went back",
        "lib/pulse",
        "return string.sub(name, 1, 1) == '=' end",
        "return false end",
    ),
    lua("breakers stay open when the clock went back", "lib/pulse", "if mode then", "if false then"),
    lua(
        "the pulse forgets the sets",
        "lib/pulse",
        ", [P .. 'set-leases'] = function() return longest end }",
        " }",
    ),
    lua("two renewals in one millisecond are a clock set back", "lib/pulse", "last - now >= 1000 --", "last > now --"),
    lua("a long lease is made fresh to a short one", "lib/pulse", "tonumber(call('ZSCORE', P .. 'terms', inc)) or", ""),
    lua("a short silence is none for a short lease", "lib/pulse", "term(0, lease)", "term(-1, lease)"),
    lua("a short lease shortens the set's", "lib/serving", "'GT', int(ends)", "int(ends)"),
    lua("a set that was lost stays lost", "renew", "if serve(set, queues, now + lease) then", "if false then"),
    lua("what limits a task need not be in force", "register", "< announced then", "< 0 then"),
    lua("an older worker takes back what a newer one said", "publish", "return at <= since", "return true"),
    lua("any run decides a half-open breaker", "lib/gates", "taken_at ~= time", "false"),
    lua("runs from before a trip count after it", "lib/gates", "or taken_at < time then", "then"),
    lua("delays wait longer when the clock went back", "lib/pulse", "move('schedule', by", "move('none', by"),
    lua("etas move with the clock", "lib/pulse", "return due % 1 ~= 0 end", "return false end"),
    lua("locks last longer when the clock went back", "lib/pulse", "call('INCRBY', P .. 'set-back', by)"),
    lua("the pulse is not kept", "lib/pulse", "call('SET', P .. 'pulse', int(now))"),
    # -- where memory is scarce
    lua(
        "a full server keeps results",
        "lib/done",
        "elseif n_results > 0 and not no_room then",
        "elseif n_results > 0 then",
    ),
    lua("a full server keeps the results of failures", "lib/publishing", "and not no_room then", "then"),
    lua("nobody sees that a server is full", "fetch", "  no_room = true\n", ""),
    # -- revoking
    lua(
        "what was revoked may be retried",
        "lib/settle",
        "if counter and end_revoked(queue, id, counter) then",
        "if false then",
    ),
    lua("what was revoked has no value", "lib/settle", "and byte(ARGV[i + 3], 1) ~= 88", "and false"),
    lua("a value leaves the mark of its revocation", "lib/ending", "  call('HDEL', P .. 'revoked', unpack(ids))\n", ""),
    lua("what was revoked is recovered", "lib/recover", "if end_revoked(item.queue", "if false and (item.queue"),
    lua("what was revoked goes back by a sync", "sync", "if end_revoked(queue, id, 'discarded') then", "if false then"),
    lua(
        "what was revoked is taken",
        "lib/take",
        "if run.some_revoked and flow.end_revoked(queue, ids[j], 'discarded', value) then",
        "if false then",
    ),
    lua("a renewal does not tell of revocations", "renew", "if why then", "if false then"),
    lua(
        "what was revoked is taken, where a queue is special",
        "lib/special",
        "if has_ended(queue, ids[j], value) then",
        "if not value then",
    ),
    lua(
        "what was revoked is taken from a line",
        "lib/special",
        "local dead = has_ended(queue, id, value)\n",
        "local dead = not value\n",
    ),
    lua(
        "a suspect that was revoked is taken",
        "lib/special",
        "if has_ended(queue, id, value) then return true end",
        "if not value then return true end",
    ),
    lua(
        "what was revoked ends without a word",
        "lib/publishing",
        "  publish(id, 'X' .. why, setting('result_ttl') or 3600000, anybody_waits())\n",
        "",
    ),
    lua(
        "what runs is not marked",
        "revoke",
        "  call('HSET', P .. 'revoked', id, ARGV[2])\n  call('RPUSH'",
        "  call('RPUSH'",
    ),
    lua("a dead letter may be marked", "mark", " and call('HEXISTS', P .. 'reasons', id) == 0"),
    lua("what is revoked together is not marked first", "mark", "call('HSET', P .. 'revoked', id, ARGV[1])"),
    lua("nobody is told to stop what runs", "revoke", "  call('RPUSH', P .. 'control:' .. inc, id)\n"),
    lua("a dead letter may be revoked", "revoke", "or call('HEXISTS', P .. 'reasons', id) == 1 then", "then"),
    lua(
        "who waits for what was revoked is not told",
        "revoke",
        "publish(id, 'X' .. told_why(ARGV[2]), setting('result_ttl') or 3600000, anybody_waits())\n",
        "",
    ),
    lua("a revoked delay is still counted", "revoke", "if gone then count(queue, 'scheduled', -1) end"),
    lua("what was revoked in a line is still counted", "revoke", "    count(queue, 'gated', -1)\n"),
    lua(
        "a gate names a line that was revoked",
        "revoke",
        "if not first_of(queue, name) then leave_line(name, queue) end",
        "",
    ),
    lua(
        "the mark outlives what is revoked again",
        "revoke",
        "if gone then ended(queue, { id }, 'discarded') else",
        "if gone then call('HDEL', P .. 'messages', id) count(queue, 'discarded') else",
    ),
    lua(
        "suspects wait for one that was revoked",
        "revoke",
        "== 1 then announce_suspects(queue, clock()) end",
        "== 0 then gone = true end",
    ),
    # -- pausing
    lua("controls of a task hold in its own queue only", "lib/reading", ".. (common or '')", ".. ''"),
    lua("controls cost all queues for ever", "lib/gates", "mark('*', 'l', any)", "mark('*', 'l', true)"),
    lua("a paused queue is taken from", "lib/special", "if marked(queue, 'p') then return 0, false end"),
    lua(
        "the line of a paused queue is taken from",
        "lib/special",
        "if marked(queue, 'p') then\n    call('ZADD'",
        "if false then\n    call('ZADD'",
    ),
    lua(
        "the line of a paused queue is forgotten", "lib/special", "call('ZADD', P .. 'lines:' .. queue, int(now), line)"
    ),
    lua(
        "suspects of a paused queue are taken",
        "lib/special",
        "marked(queue, 'p') and NONE or call('LRANGE'",
        "call('LRANGE'",
    ),
    lua("a paused task is taken", "lib/gates", "if limits.paused or line_left(task, 'p') then", "if false then"),
    lua(
        "what comes after a pause passes what it left waiting",
        "lib/gates",
        "limits.paused or line_left(task, 'p')",
        "limits.paused",
    ),
    lua(
        "what comes after a limit passes what it left waiting",
        "lib/gates",
        " or line_left(task, '0') or line_left(task, '1')",
        "",
    ),
    lua(
        "a line behind others at an open gate is told to nobody",
        "lib/lines",
        "  if not opens and room(name, now) >= 1 then announce(queue, now, who) end\n",
    ),
    lua(
        "what is left of a line of other limits stays in its group",
        "lib/special",
        "elseif name then announce(queue, now, line)",
        "elseif false then",
    ),
    lua(
        "a group that has been emptied waits on",
        "lib/special",
        "        if call('EXISTS', key) == 0 then leave_line(group, queue) end",
    ),
    lua(
        "an audit opens a gate before its time is looked at",
        "reopen",
        "if time and time <= now + 1 then return true end",
        "",
    ),
    lua(
        "an audit opens what somebody is about to look at",
        "reopen",
        "return any or all or is_paused(queue, line)",
        "return false",
    ),
    lua("a queue is resumed in silence", "lib/pausing", "if waiting(queue) > 0 then announce(queue, now) end"),
    lua(
        "suspects are resumed in silence",
        "lib/pausing",
        "> 0 then announce_suspects(queue, now) end",
        "> 0 then now = now end",
    ),
    lua("lines are resumed in silence", "lib/pausing", "call('ZRANGE', P .. 'lines:' .. queue, 0, 99)", "{}"),
    lua("a task is resumed in silence", "lib/pausing", " .. '#p', now)", " .. '#x', now)"),
    lua("a queue stays paused", "lib/pausing", "mark(queue, 'p', false)"),
    lua(
        "a pause does not end by itself",
        "lib/pausing",
        "call('ZADD', P .. 'openings', int(now + ms), '=' .. name)",
        "now = now",
    ),
    lua("a pause goes on beyond its time", "lib/promote", "resume(sub(name, 2), now) else", "now = now else"),
    lua(
        "nobody is told when a pause ends",
        "lib/pausing",
        "[1] == '=' .. name then ring(P .. 'alarm') end",
        "[1] == '=' .. name then now = now end",
    ),
    lua(
        "a pause that is made endless ends",
        "lib/pausing",
        "call('ZREM', P .. 'openings', '=' .. name)\n  else",
        "now = now\n  else",
    ),
    lua(
        "who comes is not told of lines",
        "register",
        "if is_new then tell_of_lines(ARGV[5], now) end",
    ),
    # -- recovery
    lua("a recovered incarnation may go on speaking", "lib/recover", "call('HDEL', P .. 'calls', inc)", "", True),
    lua(
        "a recovered incarnation keeps its messages", "lib/recover", "call('DEL', P .. 'processing:' .. inc)", "", True
    ),
    lua("a recovered incarnation keeps its lease", "lib/recover", "call('ZREM', P .. 'leases', inc)"),
    lua(
        "suspects are blamed",
        "lib/recover",
        "local counted = may_run == 1 and (alone or all == 1)",
        "local counted = true",
    ),
    lua("one in company is blamed", "lib/recover", "may_run == 1 and (alone or all == 1)", "may_run == 1"),
    lua("one alone is not blamed", "lib/recover", "may_run == 1 and (alone or all == 1)", "all == 1"),
    lua("one death too many is borne", "lib/recover", "if crashes >= (setting", "if crashes > (setting"),
    lua("a deploy counts as a crash", "lib/recover", "elseif died and may_have_run then", "elseif may_have_run then"),
    lua("at most once runs twice", "lib/recover", "elseif item.once and may_have_run then", "elseif false then"),
    lua(
        "what had not started goes to the tail", "lib/recover", "put_back(queue, list, now)", "offer(queue, list, now)"
    ),
    lua(
        "a suspect that had not started is in company again",
        "lib/recover",
        "elseif item.suspect then",
        "elseif false then",
    ),
    lua(
        "what had not started is suspected",
        "lib/recover",
        "elseif died and may_have_run then",
        "elseif died then",
    ),
    lua("the wait after a death is doubled", "lib/recover", "2 ^ (crashes - 2)", "2 ^ (crashes - 1)"),
    lua("a young message is discarded", "lib/recover", "age > discard", "age < discard"),
    lua(
        "messages come back out of order",
        "lib/recover",
        "return a.accepted < b.accepted",
        "return a.accepted > b.accepted",
    ),
    # -- ends
    lua("results never expire", "lib/publishing", "result, 'PX', ttl)", "result)"),
    lua("inboxes never expire", "lib/publishing", "call('PEXPIRE', key, 60000)"),
    lua("waiters are never forgotten", "lib/publishing", "call('HDEL', P .. 'waiters', id)"),
    lua("waiters are not told", "lib/publishing", "    call('RPUSH', key, struct.pack('B', #id) .. id .. result)\n"),
    lua("a dead letter keeps its crashes", "lib/burying", "  call('HDEL', P .. 'crashes', id)\n", ""),
    lua("the youngest dead letters go", "lib/burying", "call('ZRANGE', key, 0,", "call('ZREVRANGE', key, 0,"),
    # -- producers
    lua(
        "a repeated send is not recognised",
        "enqueue",
        "  if tonumber(last) == number and its_first == first then return reply end\n",
        "",
    ),
    lua(
        "a send that went back is executed",
        "enqueue",
        "  return redis.error_reply('TASKQ producer sequence went back')\n",
        "  return nil\n",
    ),
    lua("an id may be used while its result exists", "lib/accept", " or call('EXISTS', P .. 'result:' .. id) == 1"),
    lua(
        "an id may be used while it is alive",
        "lib/accept",
        "call('HEXISTS', P .. 'messages', id) == 1 or ",
        "false or ",
    ),
    lua(
        "producers never expire",
        "enqueue",
        "int(number) .. ' ' .. reply .. ' ' .. first, 'EX', 3600)",
        "int(number) .. ' ' .. reply .. ' ' .. first)",
    ),
    lua(
        "scheduled messages are not accepted",
        "lib/accept",
        "'accepted', #place.now + #place.later)",
        "'accepted', #place.now)",
    ),
    lua(
        "the clock of the client counts",
        "lib/accept",
        "due, of_day = n, true",
        "due, of_day = n - 60000, true",
    ),
    # -- flow control
    lua("the virtual time stands still (flow)", "lib/ranked", "call('ZADD', fair, 'GT', int(last), int(0 - band))"),
    lua(
        "the time of one band is that of all (flow)",
        "lib/special",
        "served[math.floor(ranks[j] / BAND)]",
        "served[0]",
    ),
    lua(
        "a head cut short stops a script (flow)",
        "lib/ranked",
        "math.min(at + 2 + high * 256 + low, #value + 1)",
        "at + 2 + high * 256 + low",
    ),
    lua("lines at gates are no part of the length (flow)", "lib/ranked", "(marked(queue, 'l') and", "(false and"),
    lua(
        "a refused call takes the lock (flow)",
        "lib/locking",
        "    if not full then locks[lock] = { id, mode, ms } end\n    return nil\n",
        "    locks[lock] = { id, mode, ms }\n    return nil\n",
    ),
    lua(
        "a full queue refuses what is another's (flow)",
        "lib/accept",
        "answer = first or full and '!' or answer",
        "answer = full and '!' or first or answer",
    ),
    lua("the rounding of a score costs a start (flow)", "lib/gates", "math.min(0.001 / gate.interval, 0.01)", "0"),
    lua("the time of a slower rate holds on (flow)", "lib/gates", "if arrival > last + 1 then", "if false then"),
    lua(
        "what RateLimited asked for is not kept (flow)",
        "lib/gates",
        "call('ZADD', P .. 'shut', int(math.ceil(time)), name)",
    ),
    lua(
        "the last wait asked for is the one that counts (flow)",
        "lib/gates",
        "if time > shut_until(name) then",
        "if true then",
    ),
    lua(
        "RateLimited shuts the gate of a pause (flow)",
        "lib/gates",
        "names[1] == task .. '#p' and names[2] or names[1]",
        "names[1]",
    ),
    lua("what took no slot gives one back (flow)", "lib/gates", "return gate.slots > 0", "return true"),
    lua(
        "an old announcement erases other lines (flow)",
        "lib/lines",
        "if at then set_waiters(name, sub(waiters, 1, at) .. sub(waiters, stop + 1)) end",
        "set_waiters(name, ' ')",
    ),
    lua("a breaker outlives its declaration (flow)", "lib/lines", "call('HDEL', P .. 'breakers', task)"),
    lua("slots are not given back (flow)", "lib/lines", "use(name, -(times or 1))"),
    lua(
        "a line whose own gate opens overtakes the others of its task (flow)",
        "lib/special",
        "if not name and not is_told(line, other)",
        "if false and not is_told(line, other)",
    ),
    lua(
        "what was taken goes to the end of its line (flow)",
        "lib/lines",
        "call(at_head and 'LPUSH' or 'RPUSH'",
        "call('RPUSH'",
    ),
    lua(
        "who comes later overtakes the line (flow)",
        "lib/lines",
        "(queue and anybody_in_line and (has_line(name, queue)",
        "(false and (has_line(name, queue)",
    ),
    lua("what has expired spends a rate (flow)", "lib/special", " or end_expired(queue, id, value, now)"),
    lua("what is not to run takes room (flow)", "lib/accept", " - flow.dead_in(queue)"),
    lua("what has expired holds a lock (flow)", "lib/unique", " and not expired(id, value, now)"),
    lua(
        "what runs loses its lock when it expires (flow)",
        "lib/expiry",
        "id) == 1 then return false end",
        "id) == 9 then return false end",
    ),
    lua(
        "those behind keep the turns of what is gone (flow)", "lib/ranked", "if units then call(", "if false then call("
    ),
    lua(
        "those to come keep the turns of what is gone (flow)",
        "lib/ranked",
        "if last and (all_seen",
        "if false and (all_seen",
    ),
    lua(
        "a rank leaves its band (flow)",
        "lib/ranked",
        "math.min(math.max(served, last) + units, base + BAND - 1)",
        "math.max(served, last) + units",
    ),
    lua("a line forgets ranks (flow)", "lib/lines", "if rank then call('ZADD'", "if false then call('ZADD'"),
    lua("who is first in a line overtakes the queue (flow)", "lib/special", "first and first < place and", "false and"),
    lua(
        "a gate that is shut lets the virtual time go on (flow)",
        "lib/special",
        "stand(queue, line, ids[j], ranks[j])",
        "stand(queue, line, ids[j], ranks[j]); served[0] = ranks[j]",
    ),
    lua(
        "a queue as a whole is taken for another (flow)",
        "lib/special",
        "wait_at(name, '*' .. queue",
        "wait_at(name, queue",
    ),
    lua("newcomers are not told of lines (flow)", "register", "if is_new then tell_of_lines(ARGV[5], now) end"),
    lua("what is returned takes any lock again (flow)", "lib/unique", "if mode ~= 's' and not found.d then"),
    lua("a revoked message keeps its lock (flow)", "revoke", "if found.u then unlock((lock_in(found.u)), id) end"),
    lua(
        "the pause of a task is looked for by its queue (flow)",
        "lib/pausing",
        "'=' .. name) == 1, resume_queue(name, now)",
        "'=' .. name) == 1, what_to_pause(name) == name and resume_queue(name, now)",
    ),
    lua(
        "lines of limits that are no more are not looked at (flow)",
        "mend",
        "if sub(name, 1, #task + 1) == task .. '#' then",
        "if false then",
    ),
    lua(
        "a tick of unique work is not counted (flow)",
        "tick",
        "elseif answer == 's' or answer == 'u' then",
        "elseif answer == 's' then",
    ),
    lua(
        "a tick for a full queue is lost (flow)",
        "tick",
        "if answer == '!' then put_off(i) elseif",
        "if false then elseif",
    ),
    lua(
        "a tick that waits is counted each time (flow)",
        "tick",
        "if call('HSETNX', key, 'waits', due) == 1 then",
        "if call('HSETNX', key, 'waits', due) then",
    ),
    lua("a tick that waited is on time (flow)", "tick", "due = waits or due", "due = due"),
    py(
        "several that must wait come back in reverse (flow)",
        "broker/commands/outcomes",
        "isinstance(outcome, (Limited, Returned))",
        "isinstance(outcome, Returned)",
    ),
    py(
        "tuples of keys are one key (flow)",
        "tasks/keys",
        "f\"({''.join(key_text(item) + ',' for item in value)})\"",
        "','.join(key_text(item) for item in value)",
        "tests/unit/test_flow.py",
    ),
    # -- sync
    lua(
        "a sync does not raise the call number",
        "sync",
        "call('HSET', P .. 'calls', inc, int(number) .. (executed and '' or '.5'))",
        "",
        True,
    ),
    lua("a late sync is executed", "sync", "if number <= last then return { 'stale' } end", "", True),
    lua("a lost incarnation may sync", "sync", "if last < 0 then return { 'lost' } end", "", True),
    lua("a sync forgets its verdict", "sync", "(executed and '' or '.5')", "''"),
    lua("what a lost call took is orphaned", "sync", "call('HDEL', processing, id)"),
    lua(
        "a sync returns messages out of order",
        "sync",
        "return accepted[a] < accepted[b]",
        "return accepted[a] > accepted[b]",
    ),
    lua("a sync makes suspects innocent", "sync", "if suspect then", "if false then"),
    lua("a sync puts messages at the tail", "sync", "put_back(queue, {", "offer(queue, {"),
    # -- leases
    lua(
        "the living are reaped",
        "reap",
        "'-inf', int(now), 'LIMIT', 0, limit",
        "'-inf', int(now + lease), 'LIMIT', 0, limit",
        True,
    ),
    lua("a reaper does not look at the pulse", "reap", "  shortest, longest = pulse(now, lease)\n"),
    lua("a reaper suspects nobody", "reap", "recover(inc, now, nil, true", "recover(inc, now, {}, true"),
    lua("a reaper calls it a deploy", "reap", "recover(inc, now, nil, true", "recover(inc, now, nil, false"),
    lua("sets are dropped at once", "reap", "int(now - longest), 'LIMIT', 0, 20", "int(now), 'LIMIT', 0, 20"),
    lua("one that cannot be recovered stays the first", "reap", "int(now + lease / 3), inc", "int(now), inc"),
    lua("of thousands one alone may be left", "lib/recover", "math.min(MOST, all - 2)", "MOST"),
    lua("the rest of thousands is nobody's", "lib/recover", "if #held == all then", "if true then"),
    lua("a recovery begins in spite of a wrong key", "lib/recover", "  expect_common()\n"),
    lua("a second registration begins anew", "register", "'HSETNX', P .. 'calls'", "'HSET', P .. 'calls'", True),
    lua(
        "what waits already is not announced",
        "lib/serving",
        "if waiting(queue) > 0 then announce(queue, now) end",
    ),
    lua(
        "a renewal does not say who is lost",
        "renew",
        "if leased or call('HEXISTS', P .. 'calls', inc) == 1 then",
        "if true then",
        True,
    ),
    lua("a renewal gives no time", "renew", "int(now + lease), inc)", "int(now), inc)"),
    # -- those who look on
    lua("a replay leaves the reason", "replay", "call('HDEL', P .. 'reasons', id)"),
    lua("a replay keeps the old result", "replay", "call('DEL', P .. 'result:' .. id)"),
    lua("the living are purged", "purge", "if call('ZSCORE', P .. 'dead:' .. queue, ARGV[i]) then", "if true then"),
    lua("the second who waits replaces the first", "await", "inboxes .. ' ' .. inbox)", "inbox)"),
    # -- a worker's dialogue
    py(
        "no sync after a lost answer",
        "worker/child/session",
        "if (yield from self._sync(number)) and groups:",
        "if False:",
        fencing=True,
    ),
    py(
        "outcomes are sent again after they took effect",
        "worker/child/session",
        "groups = []  # it was",
        "pass  # it was",
    ),
    py(
        "what was taken again is orphaned",
        "worker/child/session",
        "yield from self._sync(number)  # also",
        "pass  # also",
    ),
    py(
        "the session reuses a call number",
        "worker/child/session",
        "            self._number += 1\n            number = self._number",
        "            number = self._number + 1",
        fencing=True,
    ),
    py(
        "what a refused call took is orphaned",
        "worker/child/session",
        "self.doubtful = True  # it may",
        "pass  # it may",
    ),
    py("a session forgets what it holds", "worker/child/session", "self.held.update(batch.messages[::2])", "pass"),
    py("a sync gives back what runs", "worker/child/session", "lost, tuple(self.held))", "lost, ())"),
    py(
        "what is returned goes back in reverse",
        "broker/commands/outcomes",
        "for outcome in reversed(returned):",
        "for raw_id in returned:",
    ),
    # -- a worker's end
    py(
        "coroutines beside a death are blamed",
        "worker/parent/closing",
        "for _, entries in self.lanes) == 1",
        "for _, entries in self.lanes) >= 1",
    ),
    py(
        "a parent does not say what ran",
        "worker/parent/closing",
        "alone=closing.alone, running=running,",
        "alone=closing.alone, running=(),",
    ),
    py(
        "only the first over its time limit fails",
        "worker/parent/closing",
        "next(self._numbers), words",
        "1 << 52, words",
    ),
    py(
        "a parent blames those it stopped",
        "worker/parent/supervisor",
        "died = failed and not self.signals.stops and not child.overdue",
        "died = failed",
        _KILLS + "test_a_second_stop_ends_at_once_and_returns_what_ran",
    ),
    py(
        "a child that holds nothing is waited for",
        "worker/parent/children",
        "if now >= child.leaves_by and child.process.exitcode is None:",
        "if False:",
        "tests/integration/test_leaving.py",
    ),
    py(
        "a child that takes no more is not replaced",
        "worker/parent/children",
        "child.retiring = child.retiring or child.slots[0].retiring",
        "child.retiring = child.retiring",
        "tests/integration/test_leaving.py",
    ),
    py(
        "a drain ends while something runs",
        "broker/commands/looking",
        "return not self.ready and self.held == 0 and self.opens is None",
        "return not self.ready and self.opens is None",
        "tests/contract/test_survey.py",
    ),
    py(
        "an interruption is no cancellation",
        "worker/child/interrupt",
        "(cls, asyncio.CancelledError), {",
        "(cls,), {",
        "tests/unit/test_interrupt.py",
    ),
    py(
        "a parent counts no death",
        "worker/parent/supervisor",
        "died = failed and not self.signals.stops and not child.overdue",
        "died = False",
        _KILLS + "test_poison_is_a_dead_letter_after_three_counted_deaths",
    ),
    py(
        "a lane runs what may be another's",
        "worker/child/main_lane",
        "if began > lease_until and began >",
        "if began < 0 and began >",
        _LANES,
        fencing=True,
    ),
    py(
        "a lane speaks for a lost incarnation",
        "worker/child/main_lane",
        "if session.incarnation is incarnation:\n                outcomes.append(outcome)",
        "outcomes.append(outcome)",
        _LANES,
        fencing=True,
    ),
    py(
        "a lane does not say what runs",
        "worker/child/main_lane",
        "memory[index_at] = ",
        "_ = ",
        _LANES,
    ),
    py(
        "a loop lane runs what may be another's",
        "worker/child/loop_lane",
        "        if boottime() > self.slot.lease_until:  # they may be",
        "        if False:  # they may be",
        _LANES,
        fencing=True,
    ),
    py(
        "a loop lane speaks for a lost incarnation",
        "worker/child/loop_lane",
        "if incarnation != self.session.incarnation:",
        "if False:",
        _LANES,
        fencing=True,
    ),
    py(
        "a loop lane takes while its lease is not renewed",
        "worker/child/loop_lane",
        "if boottime() > self.slot.lease_until:  # take nothing",
        "if False:  # take nothing",
        _KILLS + "test_what_a_child_takes_while_its_parent_cannot_renew_is_not_stranded",
    ),
    py(
        "a main lane takes while its lease is not renewed",
        "worker/child/main_lane",
        "if boottime() > self.slot.lease_until:  # take nothing",
        "if False:  # take nothing",
        _KILLS + "test_what_a_child_takes_while_its_parent_cannot_renew_is_not_stranded",
    ),
    py(
        "a lease is counted from the answer",
        "worker/parent/heartbeat",
        "slot.renewed(now + self.lease)",
        "slot.renewed((yield Now()) + self.lease)",
        _HEARTBEAT,
        fencing=True,
    ),
    py(
        "the lease of a lost incarnation is renewed",
        "worker/parent/heartbeat",
        "if incarnation not in renewal.lost and slot",
        "if slot",
        _HEARTBEAT,
        fencing=True,
    ),
    py(
        "a successor inherits a renewal",
        "worker/parent/heartbeat",
        "not in renewal.lost and slot.incarnation == incarnation:",
        "not in renewal.lost:",
        _HEARTBEAT,
        fencing=True,
    ),
    py(
        "children outlive their parent",
        "worker/child/child",
        "ctypes.CDLL(None).prctl(1, signal.SIGKILL)",
        "pass",
        _KILLS + "test_children_die_with_their_parent",
    ),
    py(
        "a stopped child leaves its lease behind",
        "worker/child/session",
        "        if self.incarnation:\n            command = holding.close(",
        "        if not self.incarnation:\n            command = holding.close(",
        _KILLS + "test_a_stop_lets_running_tasks_end_and_returns_the_rest",
    ),
    # -- middleware and hooks
    py("a call goes on twice", "tasks/hooks", "rest, self._rest = self._rest, None", "rest = self._rest", _HOOKS),
    py("the first middleware is the innermost", "tasks/hooks", "in reversed(middleware)", "in middleware", _HOOKS),
    py("a hook that is ignored is accepted", "tasks/hooks", "if self._closed:", "if False:", _HOOKS),
    py(
        "a coroutine that is returned runs outside of middleware",
        "runs/invoke",
        "    value = function(*args, **kwargs)\n    while type(value) in UNFINISHED:\n        value = finish(value)\n",
        "    value = function(*args, **kwargs)\n",
        _HOOKS,
    ),
    py(
        "a hook can end a worker",
        "runs/hooks",
        "except BaseException as error:  # SystemExit",
        "except Exception as error:  #",
        _HOOKS,
    ),
    py("a dead letter is not told", "runs/execution", 'self._note(delivery, error, "failure", "dead")', "pass", _HOOKS),
    py(
        "middleware changes what the caller holds",
        "calls/outgoing",
        'as_map("headers", options.pop("headers", None))',
        'options.pop("headers", None) or {}',
        _HOOKS,
    ),
    py(
        "ticks carry what belongs to one call",
        "app",
        "task.write(args, kwargs,",
        "task.prepare_call(args, kwargs,",
        _HOOKS,
    ),
    py(
        "a hook that lasts keeps a message in a main lane",
        "worker/child/main_lane",
        "self._work.set()  # while",
        "pass  # while",
        f"{_MIDDLEWARE}{_HANGS}",
    ),
    py(
        "a hook that lasts keeps a message on a loop",
        "worker/child/loop_lane",
        "        self._end(delivery, outcome)\n" + _TELLS,
        _TELLS + "        self._end(delivery, outcome)\n",
        f"{_MIDDLEWARE}{_HANGS}",
    ),
    py(
        "hooks are told what counts for nothing",
        "worker/child/main_lane",
        "if self.executor.told and self.session.incarnation is incarnation:",
        "if self.executor.told:",
        _LANES,
    ),
    py(
        "a hook for the end of a child holds up a stop",
        "worker/child/child",
        "        self.slots[0].leave_with(code)\n        self._tell_parent()\n        if not",
        "        if not",
        f"{_LIFECYCLE}test_a_hook_that_hangs_does_not_hold_up_a_stop",
    ),
    py(
        "a hook in the parent holds up a stop",
        "worker/lifecycle",
        "thread.join(seconds)",
        "thread.join()",
        f"{_LIFECYCLE}test_a_hook_that_hangs_does_not_hold_up_a_stop",
    ),
    py(
        "what a child sets at its start is put back",
        "worker/child/child",
        '        call_hooks(self.app.client.hooks, "child_init")\n        self.surroundings.note()\n',
        '        self.surroundings.note()\n        call_hooks(self.app.client.hooks, "child_init")\n',
        f"{_LIFECYCLE}test_what_a_child_sets_at_its_start_is_what_every_task_finds",
    ),
    # -- what is read
    py(
        "any depth is read",
        "message/codec",
        "        skipper.skip()\n",
        "",
        "tests/unit/test_codec.py",
    ),
    py(
        "what is written is not checked to be readable",
        "message/codec",
        "        data = _mine.pack([list(args), kwargs])\n        if len(data) > _MAX_DEPTH:",
        "        data = _mine.pack([list(args), kwargs])\n        if False:",
        "tests/unit/test_codec.py",
    ),
    py(
        "a message of any size is read",
        "runs/execution",
        "if len(delivery.value) > self._max_bytes:",
        "if False:",
        "tests/unit/test_execution.py",
    ),
    py(
        "a plain message of any size is read",
        "runs/execution",
        "plain_body(value, at) if len(value) <= self._max_bytes else None",
        "plain_body(value, at)",
        "tests/unit/test_execution.py",
    ),
    py(
        "headers may hold anything",
        "message/codec",
        "return _unpack_large(data, ext_hook=_no_ext)",
        "return msgpack.unpackb(data)",
        "tests/unit/test_envelope.py",
    ),
    py(
        "what must not run twice has ended before the server knows",
        "worker/child/main_lane",
        "        if once:  # it must",
        "        if False:  # it must",
        "tests/model/test_lane.py",
    ),
    py(
        "a coroutine has ended before the server knows",
        "worker/child/loop_lane",
        "self._unsettled.append(delivery.place)",
        "self.slot.leave(delivery.place)",
        _LANES,
    ),
    py(
        "the last of a batch has ended before the server knows",
        "worker/child/main_lane",
        "        self._started = 0.0\n        current.set(None)",
        "        self._started = 0.0\n        slot.idle()\n        current.set(None)",
        _LANES,
    ),
    py(
        "a parent makes the objects of a message",
        "worker/parent/closing",
        "self._executor.find(delivery)",
        "self._executor.prepare(delivery)",
        "tests/integration/test_limits.py::test_a_parent_never_makes_the_objects_of_a_message",
    ),
    py(
        "the fast path does not look at the id",
        "runs/execution",
        "value.startswith(delivery.id + route.plain, at)",
        "value.startswith(route.plain, at + 16)",
        "tests/unit/test_execution.py",
    ),
    # -- what is worked out anew
    lua("a mark that is missing stays so", "restore", "mark(queue, letter, on)"),
    lua("a guest that runs at most once is not known again", "restore", "(flags % 4 >= 2 and", "(false and"),
    lua("who serves a queue is not worked out", "restore", "call('HSET', P .. 'serving', queue, right)"),
    lua("what waits is not told of anew", "restore", "    announce(queue, now)\n"),
    lua("suspects are not told of anew", "restore", "    announce_suspects(queue, now)\n"),
    lua("a gate that is open stays unopened", "reopen", "    open(name, now)\n"),
    lua("a gate without its time gets none", "reopen", "  call('ZADD', P .. 'openings', int(math.ceil(time)), name)\n"),
    lua("slots in use stay miscounted", "recount", "    use(name, held[name] - used_at(name))\n"),
    lua("a breaker waits for a probe that is lost", "recount", "    set_breaker(task, 'o', now, '')\n"),
    lua("a dead letter that stands nowhere runs again", "mend", "call('HEXISTS', P .. 'reasons', id) == 1", "false"),
    lua("a line that no gate knows stays so", "mend", "  wait_at(gate, queue, select(2, room(gate, now)))\n"),
    lua(
        "a lock whose time is over is mended",
        "tidy",
        "return not id or call('HEXISTS', P .. 'messages', id) == 0 or",
        "return not string.find(call('HGET', key, lock), '^0 ') or",
    ),
    lua("locks of messages that are gone stay", "tidy", "if is_of_none(field) then", "if false then"),
    lua("a lock until a start that was is mended", "relock", "if mode == 'd' then given", "if true then given"),
    lua("a lock that is missing stays so", "relock", "      take_lock(lock, mode, left, id, now)\n"),
    lua("an entry without a tick stays silent", "rouse", "      call('ZADD', P .. 'ticks', due, name)\n"),
    py("a single walk is believed", "upkeep/audit", "doubtful = yield from _walk(keys, names, doubtful)", "pass"),
    # -- upkeep
    py(
        "a heartbeat renews nothing",
        "worker/parent/heartbeat",
        "self.plan.sets, by_incarnation, self",
        "self.plan.sets, (), self",
        "tests/simulation",
    ),
    py(
        "a heartbeat does not reap",
        "worker/parent/heartbeat",
        "if (yield Now()) >= self._reap_at:",
        "if False:",
        "tests/simulation",
    ),
    py(
        "a heartbeat tells nobody of suspects",
        "worker/parent/heartbeat",
        "        if renewal.suspects:\n            self._suspects()\n",
        "",
        "tests/simulation",
    ),
    py(
        "a reaper stops after one call",
        "upkeep/reaper",
        "if len(reaping.moves) + len(reaping.failed) >= _REAP_LIMIT or reaping.unfinished:",
        "if False:",
    ),
    py(
        "a reaper sleeps through the next end",
        "upkeep/reaper",
        "return min(self.interval, next_end + 0.01)",
        "return self.interval",
    ),
    # -- periodic entries
    lua("a lost entry stays lost (periodic)", "declare", "lost[#lost + 1] = i", "lost = lost"),
    lua(
        "an old worker that says it again is the newest (periodic)",
        "declare",
        "said == since and 'same' or 'old'",
        "'new'",
    ),
    py("bad ticks hide good ones (periodic)", "upkeep/reaper", "self._skip + TICKS if due.more", "0 if due.more"),
    py(
        "jitter makes the next tick late (periodic)",
        "periodic/entry",
        "min(self.jitter, follows - tick)",
        "self.jitter",
        *_PERIODIC,
    ),
    lua(
        "a tick that was taken is taken again (periodic)",
        "tick",
        "~= tonumber(due) then return 'x' end",
        "== 0 then end",
    ),
    lua("a tick of another definition is taken (periodic)", "tick", "sub(entry, 1, 16) ~= ARGV[i + 1]", "false"),
    lua(
        "a dead letter stands in the way of ticks (periodic)", "tick", "return not (queue and", "return not (false and"
    ),
    lua(
        "a repeated tick is not recognised (periodic)",
        "tick",
        "local answer = accept(id, ARGV[i + 4]",
        "local answer = accept(id .. int(now), ARGV[i + 4]",
    ),
    lua("ticks do not bound the wait (periodic)", "promote", "if tick and (not due or tick < due) then due = tick end"),
    lua("an old worker restores its entries (periodic)", "declare", "force or code == 'new'", "true"),
    lua("code takes away what others declare (periodic)", "declare", "if declared[i] ~= source then", "if false then"),
    lua(
        "code takes away what a command added (periodic)",
        "declare",
        "is_dropped and call('HGET', P .. 'entry:' .. name, 'origin') == 'code'",
        "is_dropped",
    ),
    lua("a due tick is lost with its definition (periodic)", "lib/entries", " or (due and tonumber(due) <= now)"),
    lua("a change resumes an entry (periodic)", "lib/entries", "call('HEXISTS', key, 'paused') == 1 or ", ""),
    py("a repeated hour ticks twice (periodic)", "periodic/schedule", "if tick > last:", "if True:", *_PERIODIC),
    py(
        "a skipped time is not moved on (periodic)", "periodic/schedule", "wall += _MINUTE", "return moment", *_PERIODIC
    ),
    py(
        "a change of clocks is overlooked (periodic)", "periodic/schedule", "if change is None:", "if True:", *_PERIODIC
    ),
    py("missed ticks are all sent (periodic)", "periodic/entry", 'self.catch_up == "all" and late', "late", *_PERIODIC),
    py(
        "jitter is forgotten when it is late (periodic)",
        "periodic/entry",
        "self.moment(follows) <= now:",
        "follows <= now:",
        *_PERIODIC,
    ),
    py(
        "one bad entry stops all (periodic)",
        "periodic/entry",
        "except Exception as error:  # stored bytes",
        "except KeyError as error:  #",
        *_PERIODIC,
    ),
    # -- those who wait
    py(
        "what is awaited is not read again",
        "calls/inbox",
        "if now >= self._reread_at:",
        "if False:",
        "tests/integration/test_waiting.py",
    ),
    py(
        "who waits on a loop is not told that nobody reads any more",
        "calls/inbox",
        "self._hand_out([(raw_id, 1 if error is None else error) for raw_id in self._futures])",
        "pass",
        "tests/integration/test_waiting.py",
    ),
    # -- connections and processes
    py(
        "one answer may take all the time of a call",
        "broker/producer",
        "min(seconds / 2, ANSWER_TIMEOUT)",
        "min(seconds, ANSWER_TIMEOUT)",
        "tests/faults/test_connections.py",
    ),
    py(
        "who has reached a replica stays there",
        "broker/net/connection",
        "LOOK_AGAIN = (Unanswered, Passing)",
        "LOOK_AGAIN = (Unanswered,)",
        "tests/faults/test_roles.py",
    ),
    py(
        "a forked process goes on with its parent's connections",
        "calls/client",
        "        if self._pid != _getpid():\n            self._begin()\n        if self._broker is None:",
        "        if self._broker is None:",
        "tests/integration/test_forks.py",
    ),
    py(
        "a forked process goes on with its parent's ids",
        "message/envelope",
        "if getpid() != pid:",
        "if not pid:",
        "tests/integration/test_forks.py",
    ),
    # -- what a task is, and what can be sent to it
    py(
        "what a decorator wraps is judged",
        "tasks/callables",
        "inspect.signature(function, follow_wrapped=False)",
        "inspect.signature(function)",
        "tests/unit/test_callables.py",
    ),
    py(
        "a body that has not run counts as done",
        "runs/invoke",
        "frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})",
        "frozenset({CoroutineType})",
        "tests/unit/test_callables.py",
    ),
    py(
        "a task that was replaced is sent",
        "calls/sending",
        "    if call.origin.refused:",
        "    if False:",
        "tests/unit/test_callables.py",
    ),
    py(
        "a union takes the first member that accepts a value",
        "tasks/annotations",
        "if likeness == EXACT or len(options) == 1:",
        "if likeness:",
        "tests/unit/test_vetting.py",
    ),
    py(
        "a member of a union that is written alike is sent",
        "tasks/vetting",
        "(type(value) in vets or not isinstance(value, type(arrived)))",
        "False",
        "tests/unit/test_vetting.py",
    ),
    # -- handles
    py(
        "a failure that was seen is for ever",
        "calls/result",
        "return not self._ended.final and current.get() is None",
        "return False",
        "tests/cli/test_dead.py::test_a_replay_runs",
    ),
    py(
        "an error is raised again and again",
        "calls/result",
        "raise copy(ended.error)",
        "raise ended.error",
        "tests/unit/test_by_name.py",
    ),
    py(
        "of many calls none waits for room",
        "calls/sending",
        "answer if _FULL not in answer else _try_again(client, chunk, answer)",
        "answer",
        "tests/integration/test_flow.py::test_a_full_queue_refuses_or_lets_the_caller_wait",
    ),
    # -- the log
    py(
        "a dictConfig silences the worker",
        "loading",
        "            logger.disabled = False",
        "            pass",
        "tests/unit/test_logs.py",
    ),
    # -- a producer's dialogue
    py(
        "a send is repeated under a new number",
        "broker/producer",
        "self.producer, self.number, messages)",
        "self.producer, self.number + attempt, messages)",
    ),
    py(
        "a first try is repeated under a new number",
        "broker/producer",
        "        if failed is None:\n            self.number += 1",
        "        self.number += 1",
    ),
    py(
        "an uncertain send is called unsent",
        "broker/producer",
        "uncertain = uncertain or isinstance(failed, Unanswered)",
        "uncertain = False",
    ),
    # -- what the version before has left
    Mutant(
        "a lock of the version before holds nobody",
        "broker/lua/lib/unique.lua",
        "return mode == 't' and held or nil end",
        "return nil end",
        tests=("tests/integration/test_old_state.py",),
    ),
]
