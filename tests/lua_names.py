"""Names that a Lua script uses and nobody has declared: a server refuses them only when it comes by."""

from __future__ import annotations

import re

#: What a server gives to scripts.
_GIVEN = """redis KEYS ARGV string table math struct tonumber tostring ipairs pairs unpack type next select rawget
    rawset setmetatable error pcall"""
_KEYWORDS = "and break do else elseif end false for function if in local nil not or repeat return then true until while"
_WORD = re.compile(
    r"""--[^\n]* | '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | [A-Za-z_]\w* | \d[\w.]* | \.\.+ | [=~<>]= | \S""", re.X
)


def undeclared(text: str) -> list[str]:
    """Names used outside of the scope of any declaration, in order; for the plain Lua that scripts are written in."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._words = [word for word in _WORD.findall(text) if not word.startswith("--")] + [""]
        self._at = 0
        self._scopes: list[set[str]] = [set(_GIVEN.split())]
        self._next_scope: set[str] = set()
        self._found: list[str] = []

    def read(self) -> list[str]:
        while self._words[self._at]:
            word = self._words[self._at]
            self._at += 1
            if word == "local" and self._words[self._at] != "function":
                self._scopes[-1] |= self._names()
            elif word == "local":
                self._scopes[-1].add(self._words[self._at + 1])
            elif word == "for":
                self._next_scope = self._names()
            elif word == "function":
                self._function()
            elif word in _KEYWORDS.split():
                self._block(word)
            else:
                self._use(word)
        assert len(self._scopes) == 1
        return self._found

    def _names(self) -> set[str]:
        """Names with commas between."""
        names = {self._words[self._at]}
        self._at += 1
        while self._words[self._at] == ",":
            names.add(self._words[self._at + 1])
            self._at += 2
        return names

    def _function(self) -> None:
        if self._words[self._at] != "(":
            self._use(self._words[self._at])
        start = self._words.index("(", self._at)
        self._at = self._words.index(")", start)
        self._scopes.append(set(self._words[start + 1 : self._at]))

    def _block(self, word: str) -> None:
        if word in ("end", "until", "else", "elseif"):
            self._scopes.pop()
        if word in ("do", "then", "repeat", "else"):
            self._scopes.append(self._next_scope)
            self._next_scope = set()

    def _use(self, word: str) -> None:
        before, after = self._words[self._at - 2], self._words[self._at]
        is_field = before in (".", ":") or (after == "=" and before in ("{", ","))
        if re.match(r"[A-Za-z_]", word) and not is_field and not any(word in scope for scope in self._scopes):
            self._found.append(word)
