"""What an answer of the server means: wait and look again, or give up with a reason that names what and whom."""

from __future__ import annotations

import pytest
from redis.exceptions import MovedError, NoPermissionError, ReadOnlyError, ResponseError

from taskq.broker.call import Command
from taskq.broker.faults import NotSent, Passing, refused, unavailable
from taskq.broker.net.connection import connect_error, pack, pack_script, read_error
from taskq.broker.patience import persist
from taskq.broker.protocol import Now, Sleep
from taskq.broker.scripts import script
from taskq.errors import BrokerFull, BrokerRefused, BrokerUnavailable

WORDS = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS Not enough good replicas to write.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "UNKILLABLE Sorry the script already executed write commands against the dataset.",
    "Script killed by user with SCRIPT KILL...",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
]


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize(
    "written", ["{}", "ERR Error running script (call to f_0): @user_script:12: @user_script: 12: -{} ", "{} script: f"]
)
def test_a_role_or_a_mood_of_the_server_passes(written: str, text: str) -> None:
    assert isinstance(refused(ResponseError(written.format(text))), Passing)


def test_a_word_that_the_client_library_has_dropped_passes_as_well() -> None:
    assert isinstance(refused(ReadOnlyError("You can't write against a read only replica.")), Passing)


@pytest.mark.parametrize("text", ["BUSYGROUP Consumer Group name already exists", "ERR a task said -BUSYBODY", "ERR x"])
def test_all_else_is_final(text: str) -> None:
    assert isinstance(refused(ResponseError(text)), BrokerRefused)


def test_a_node_of_a_cluster_is_named_as_that() -> None:
    assert "node of a Cluster" in str(refused(MovedError("3999 127.0.0.1:6381")))


def test_a_full_server_is_full() -> None:
    assert isinstance(refused(ResponseError("OOM command not allowed when used memory > 'maxmemory'.")), BrokerFull)


def test_a_call_given_up_says_what_the_server_said() -> None:
    assert "READONLY" in str(unavailable("redis://h", Passing("READONLY it is a replica."), 5.0))
    assert "is the URL right" not in str(unavailable("redis://h", Passing("READONLY it is a replica."), 5.0))


@pytest.mark.parametrize("wait", [b"", pack([b"BLPOP", b"tq:{shop:0}:bell:s", b"4.000"])])
def test_a_missing_right_is_told_with_user_command_and_key(wait: bytes) -> None:
    error = NoPermissionError("this user has no permissions to run the 'evalsha' command")
    packed = wait + pack_script(script("fetch"), [b"tq:{shop:0}:", b"1"])

    told = str(read_error(error, "redis://ann:secret@h", packed))

    assert "the user 'ann' of redis://ann:***@h lacks a right for EVALSHA of fetch.lua with tq:{shop:0}:*" in told
    assert "secret" not in told


def test_a_missing_right_for_a_plain_command_is_told_with_its_key() -> None:
    error = NoPermissionError("No permissions to access a key")

    told = str(read_error(error, "redis://h", pack([b"SADD", b"tq:apps", b"shop"])))

    assert "the user 'default' of redis://h lacks a right for SADD with tq:apps" in told


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("rediss://h", OSError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version"), "it does not speak TLS on this port"),
        ("valkeys://h", TimeoutError(), "it has not answered in time; does it speak TLS on this port?"),
        (
            "redis://h",
            OSError(104, "Connection reset by peer"),
            "if it speaks TLS on this port, the URL begins",
        ),
        ("rediss://h", OSError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "?ssl_ca_certs=/path/ca.pem"),
    ],
)
def test_tls_on_one_side_only_is_said_as_such(url: str, error: OSError, told: str) -> None:
    answer = connect_error(error, url)

    assert isinstance(answer, NotSent)
    assert told in str(answer)


def persisted(error: Exception, *, patient: bool) -> str:
    """What becomes of a call that has a second, and is refused for an hour."""
    steps = persist(Command(None, [b"PING"], bytes), "redis://h", 1.0, patient)
    now, step = 0.0, next(steps)
    try:
        while now < 3600:
            if isinstance(step, Now):
                step = steps.send(now)
            elif isinstance(step, Sleep):
                now += step.seconds
                step = steps.send(None)
            else:
                step = steps.throw(error)
    except BrokerUnavailable:
        return "given up"
    return "waits"


def test_who_waits_without_a_time_out_outlasts_a_refusal_but_not_the_lack_of_a_server() -> None:
    assert persisted(Passing("MISCONF"), patient=True) == "waits"
    assert persisted(Passing("MISCONF"), patient=False) == "given up"
    assert persisted(NotSent("refused"), patient=True) == "given up"
