"""Letters and bits that mean something on the wire, by their names: one table, for Python and for the scripts.

In a script ``$NAME`` stands for the value of that name (`taskq.broker.scripts`).
"""

from __future__ import annotations

import re

#: Bits of the flags in the head of a message: an expiry follows; at most once; fields follow the names.
FLAG_EXPIRES, FLAG_AT_MOST_ONCE, FLAG_MORE = 1, 2, 4

#: Fields of a head: priority, weight and key in a fair queue, that it has limits, lock of unique work, how it is
#: debounced.
FIELD_PRIORITY, FIELD_FAIR, FIELD_LIMITED, FIELD_LOCK, FIELD_DEBOUNCE = b"p", b"f", b"l", b"u", b"d"

#: Options of a message that is sent: say if nobody serves its queue, delay (ms), due at (ms), expires in or at (ms),
#: how many may wait in its queue.
OPTION_WARN, OPTION_DELAY, OPTION_DUE, OPTION_EXPIRES_IN, OPTION_EXPIRES_AT, OPTION_MOST = (
    b"w",
    b"d",
    b"a",
    b"x",
    b"e",
    b"m",
)

#: Answers to a message that is sent: accepted; accepted, but nobody serves its queue; its id is in use; its queue is
#: full; another message is that work already (its id follows).
ACCEPTED, UNSERVED, DUPLICATE, FULL, SAME = b"+", b"-", b"=", b"!", b"~"

#: The answer to each of several messages that are sent together.
ANSWER = re.compile(rb"~[0-9a-f]*\.|.")

#: Marks of a queue of which something is special: it is paused, has ranked messages, has tasks with limits, was given
#: messages that run at most once and have another queue of their own, has a length at most and messages that expire.
MARK_PAUSED, MARK_RANKED, MARK_LIMITED, MARK_ONCE, MARK_BOUNDED = b"p", b"r", b"l", b"o", b"x"

#: What a stored result begins with: a value, what is known of an error, why a script gave it up, why it was discarded.
SUCCESS, FAILURE, GIVEN_UP, DISCARDED = b"S", b"F", b"D", b"X"
