"""Ids, heads and envelopes as bytes."""

from __future__ import annotations

import string
import struct
import time
from typing import Any
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.errors import DecodeError
from taskq.message.envelope import decode, encode_envelope, encode_plain
from taskq.message.head import decode_head, encode_head, names_of, plain_start, stamped
from taskq.message.ids import id_from_text, id_time, id_to_text, new_id
from taskq.message.stored import unstamped

NAMES = st.text(string.ascii_letters + string.digits + "_.:-", min_size=1, max_size=200)


def stored(
    task: str = "shop.tasks.send", queue: str = "mail", accepted: float = 1234.5, expires: float | None = None
) -> bytes:
    """A message as the enqueue script stores it."""
    head = encode_head(task, queue)
    stamps = struct.pack(">d", accepted) + (b"" if expires is None else struct.pack(">d", expires))
    return head[:1] + bytes([expires is not None]) + stamps + head[2:] + encode_envelope(b"x" * 16, {"a": 1}, b"body")


def test_ids_of_one_process_rise() -> None:
    ids = [new_id() for _ in range(10_000)]

    assert ids == sorted(set(ids))


def test_an_id_is_a_uuid_of_version_7_and_partition_0() -> None:
    before = time.time_ns() // 1_000_000
    uuid = UUID(bytes=new_id())
    after = time.time_ns() // 1_000_000

    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert before <= uuid.int >> 80 <= after
    assert (uuid.int >> 64) & 0xFFF == 0
    assert id_time(uuid.bytes) == pytest.approx(before / 1000, abs=1)


def test_an_id_that_says_no_time_has_none() -> None:
    assert id_time(b"a-name") is None
    assert id_time(UUID("f47ac10b-58cc-4372-a567-0e02b2c3d479").bytes) is None
    assert id_time(b"sixteen-letters!") is None


@given(NAMES)
def test_a_name_is_an_id_and_comes_back_as_that_name(name: str) -> None:
    assert id_to_text(id_from_text(name)) == name


@given(st.uuids())
def test_a_uuid_takes_16_bytes_in_its_canonical_form_only(uuid: UUID) -> None:
    canonical = uuid.bytes[8] & 0xC0 == 0x80

    assert id_from_text(str(uuid)) == (uuid.bytes if canonical else str(uuid).encode())
    assert id_to_text(id_from_text(str(uuid))) == str(uuid)
    assert id_from_text(str(uuid).upper() + "-") == str(uuid).upper().encode() + b"-"


@given(NAMES, NAMES)
def test_different_texts_are_different_ids(one: str, other: str) -> None:
    assert (id_from_text(one) == id_from_text(other)) == (one == other)


def test_capital_letters_make_another_id() -> None:
    text = str(UUID(bytes=new_id()))

    assert id_from_text(text) != id_from_text(text.upper()) or text == text.upper()
    assert id_to_text(id_from_text(text.upper())) == text.upper()


@pytest.mark.parametrize("text", ["", "a b", "ä", "a\n", "a" * 201, "a/b", "a\x00"])
def test_what_is_no_name_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 200"):
        id_from_text(text)


def test_foreign_bytes_have_a_text_all_the_same() -> None:
    assert id_to_text(b"\xff\x00a") == "\\xff\x00a"


@given(NAMES, NAMES, st.floats(0, 1e15), st.none() | st.floats(0, 1e15))
def test_a_head_says_task_queue_and_times(task: str, queue: str, accepted: float, expires: float | None) -> None:
    envelope = decode(stored(task, queue, accepted, expires))

    assert (envelope.task, envelope.queue, envelope.accepted, envelope.expires) == (task, queue, accepted, expires)
    assert (envelope.id, envelope.headers, envelope.body) == (b"x" * 16, {"a": 1}, b"body")


@pytest.mark.parametrize("expires", [None, 99.0])
def test_other_headers_change_nothing_else(expires: float | None) -> None:
    before = decode(stored(expires=expires))

    after = decode(before.with_headers({"retries": 1}))

    assert after.headers == {"retries": 1}
    assert (after.head, after.id, after.body, after.expires) == (before.head, before.id, before.body, before.expires)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 100_000])
def test_the_short_way_of_writing_a_plain_call_writes_the_same(size: int) -> None:
    body, headers = b"b" * size, {"sig": b"1234"}

    assert encode_plain(b"x" * 16, msgpack.packb(headers), body) == encode_envelope(b"x" * 16, headers, body)


@pytest.mark.parametrize("expires", [None, 99.0])
def test_a_message_cut_anywhere_is_an_error_of_ours(expires: float | None) -> None:
    value = stored(expires=expires)

    for end in range(len(value)):
        with pytest.raises(DecodeError):
            decode(value[:end])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_format_is_named(version: int) -> None:
    with pytest.raises(DecodeError, match=f"version {version}, this taskq reads 1"):
        decode(bytes([version]) + stored()[1:])


@pytest.mark.parametrize(
    ("envelope", "text"),
    [
        (b"", "not readable as msgpack"),
        (b"\xc1", "not readable as msgpack"),
        (b"\xdb\x7f\xff\xff\xff", "not readable as msgpack"),
        (b"\xdd\x7f\xff\xff\xff", "not readable as msgpack"),
        (b"\x91" * 10_000, "nested deeper than 1000 levels"),
        (encode_envelope(b"x", {}, b"") + b"\x00", "not readable as msgpack"),
        (msgpack.packb([1, b"x", {}]), "not \\[version, id, headers, body\\]"),
        (msgpack.packb([1, b"x", {}, b"", 5]), "not \\[version, id, headers, body\\]"),
        (msgpack.packb([2, b"x", {}, b""]), "not \\[version, id, headers, body\\]"),
        (msgpack.packb({"id": b"x"}), "not \\[version, id, headers, body\\]"),
        (msgpack.packb(7), "not \\[version, id, headers, body\\]"),
        (msgpack.packb([1, b"x", {"a": msgpack.ExtType(9, b"\x90")}, b""]), "extension type 9"),
        (b"\x94\x01\xa1x\x81\xa1h" + b"\x91" * 1000 + b"\x90\xc4\x00", "nested deeper than 1000 levels"),
        (msgpack.packb([1, "x", {}, b""]), "wrong types"),
        (msgpack.packb([1, b"x", [], b""]), "wrong types"),
        (msgpack.packb([1, b"x", {}, "text"]), "wrong types"),
        (msgpack.packb([1, b"x", {}, None]), "wrong types"),
    ],
)
def test_what_is_no_envelope_is_refused_with_the_reason(envelope: bytes, text: str) -> None:
    head = stored()[: decode_head(stored())[4]]

    with pytest.raises(DecodeError, match=text):
        decode(head + envelope)


@pytest.mark.parametrize("names", [b"\x03\xff\xfe\xfd\x01q", b"\x01t\x01\xff"])
def test_names_that_are_no_text_are_refused(names: bytes) -> None:
    with pytest.raises(DecodeError, match="without a readable head"):
        decode_head(b"\x01\x00" + bytes(8) + names)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_an_error_of_ours(data: bytes) -> None:
    try:
        decode(b"\x01" + data)
    except DecodeError:
        pass


@pytest.mark.parametrize("wrong", ["", "with a space", "x" * 201, 5, None])
def test_what_is_no_id_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^task_id .* is not 1 to 200 of the characters"):
        id_from_text(wrong)


@pytest.mark.parametrize("more", [b"", b"p\x01\x80", b"x" * 300])
@pytest.mark.parametrize(("task", "queue"), [("t", "q"), ("a.longer_name", "other"), ("t" * 200, "q" * 200)])
def test_plain_calls_of_a_task_and_queue_lead_to_one_route(task: str, queue: str, more: bytes) -> None:
    raw_id = new_id()
    sent = encode_head(task, queue, more=more) + encode_plain(raw_id, b"\x80", b"body")
    value = stamped(sent, 1e12)

    names, at = plain_start(value)

    assert value[at : at + 16] == raw_id
    assert names == names_of(decode(value).head, task, queue)
    assert unstamped(value) == sent


@pytest.mark.parametrize(
    "value",
    [
        stamped(encode_head("t", "q", at_most_once=True) + encode_plain(b"i" * 16, b"\x80", b"")),
        stamped(encode_head("t", "q") + encode_envelope(b"an id of the caller's", {}, b"")),
        b"\x02" + stamped(encode_head("t", "q") + encode_plain(b"i" * 16, b"\x80", b""))[1:],
    ],
    ids=["flags", "id", "version"],
)
def test_what_is_not_plain_leads_to_none(value: bytes) -> None:
    assert plain_start(value) == (b"", 0)
