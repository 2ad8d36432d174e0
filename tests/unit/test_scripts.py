"""The Lua scripts as files."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import pytest

from taskq.broker.scripts import Script, all_scripts, script
from tests.lua_names import undeclared

LUA = files("taskq.broker") / "lua"
NAMES = {f.name.removesuffix(".lua") for f in LUA.iterdir() if f.name.endswith(".lua")}


def test_every_file_is_a_script_and_none_of_the_parts_is() -> None:
    assert {s.name for s in all_scripts()} == NAMES
    assert "base" not in NAMES


@pytest.mark.parametrize("made", all_scripts(), ids=lambda s: s.name)
def test_a_script_has_its_parts_and_no_comments(made: Script) -> None:
    text = made.text.decode()

    assert made.sha.decode() == hashlib.sha1(made.text).hexdigest()
    assert "@include" not in text
    assert "local function clock()" in text
    assert not re.search(r"^\s*--", text, re.M)
    assert made == script(made.name)


@pytest.mark.parametrize("made", all_scripts(), ids=lambda s: s.name)
def test_a_script_uses_no_name_that_nobody_has_declared(made: Script) -> None:
    assert undeclared(made.text.decode()) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("local a, b = 1; for i = a, b do c(i) end; return i", ["c", "i"]),
        ("local function f(x) if x then local y = f(y) else return y end end", ["y"]),
        ("local t = { k = v, [w] = 1 }; t.k = t:m('v'); u = 1", ["v", "w", "u"]),
        ("repeat local a = 1 until b; while a do end", ["b", "a"]),
    ],
)
def test_which_names_those_are(text: str, names: list[str]) -> None:
    assert undeclared(text) == names


#: One step of a scan; the search in a list for an id in a second place (seldom needed), in one of 1,000 at most, or for
#: one of the first few or the first 1,000.
ALLOWED = {
    "scan": ["HSCAN", "HSCAN"], "mend": ["LREM"], "revoke": ["LREM"], "enqueue": ["LREM"], "tick": ["LREM"],
    "fetch": ["LREM"], "fetch_any": ["LREM"], "arrive": ["LREM"],
}  # fmt: skip


@pytest.mark.parametrize("made", all_scripts(), ids=lambda s: s.name)
def test_no_script_asks_for_what_takes_the_server_long(made: Script) -> None:
    forbidden = re.findall(r"'(KEYS|SCAN|HSCAN|SSCAN|ZSCAN|LREM|SMEMBERS|FLUSH\w*|EVAL|cmsgpack)\b", made.text.decode())

    assert forbidden == ALLOWED.get(made.name, [])
    assert b"cmsgpack" not in made.text


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_script_states_its_contract(name: str) -> None:
    head = "\n".join(line for line in (LUA / f"{name}.lua").read_text().splitlines() if line.startswith("--"))

    assert "-- KEYS  1 prefix" in head
    assert "-- Returns" in head


def test_every_script_takes_one_key() -> None:
    assert all(set(re.findall(r"KEYS\[(\d+)\]", made.text.decode())) == {"1"} for made in all_scripts())


def test_a_script_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        script("nothing")
