"""Globs of object names, and the objects that a source URI names.

``*`` and ``?`` do not match a ``/``, ``**`` does; ``**/`` also matches no folder at all; brackets are literal. A glob
comes from a request, so matching takes time in proportion to the lengths of glob and name: it follows all ways
through the glob at once and never goes back. `fnmatch` matches ``*`` across ``/``, and any translation to `re` goes
back exponentially often for some globs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from opensearch_batch.core.errors import ConfigError

MAX_GLOB_CHARS = 1024
# Steps that one glob remembers; names of one source repeat nearly all of theirs.
MAX_KNOWN_STEPS = 10_000
_WILDCARD = re.compile(r"[*?]")
_ANY, _IN_FOLDER, _ONE = "**", "*", "?"
Positions = frozenset[int]


class Glob:
    """A compiled glob.

    Raises:
        ConfigError: it is longer than any object's name.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_GLOB_CHARS:
            raise ConfigError(f"{text[:80]}…: a glob has at most {MAX_GLOB_CHARS} characters")
        self._tokens: list[str] = []
        self._folders: set[int] = set()
        for part in re.findall(r"\*\*/|\*\*|.", text, re.DOTALL):
            if part == "**/":
                self._folders.add(len(self._tokens))
                self._tokens += [_ANY, "/"]
            else:
                self._tokens.append(part)
        self._known: dict[tuple[Positions, str], Positions] = {}

    def matches(self, name: str) -> bool:
        """Return whether the whole name matches."""
        positions = frozenset(self._entered(0))
        for char in name:
            key = (positions, char)
            after = self._known.get(key)
            if after is None:
                if len(self._known) >= MAX_KNOWN_STEPS:
                    self._known.clear()
                after = self._known[key] = self._step(positions, char)
            positions = after
        return len(self._tokens) in positions

    def _step(self, positions: Positions, char: str) -> Positions:
        """Return the positions in the glob that are reached by one more character."""
        reached: set[int] = set()
        for at in positions:
            token = self._tokens[at] if at < len(self._tokens) else ""
            if token == _ANY or (token == _IN_FOLDER and char != "/"):
                reached.add(at)
                reached |= self._entered(at + 1)
            elif token == char or (token == _ONE and char != "/"):
                reached |= self._entered(at + 1)
        return frozenset(reached)

    def _entered(self, at: int) -> set[int]:
        """Return a position, and those behind it that need no character."""
        reached: set[int] = set()
        waiting = [at]
        while waiting:
            at = waiting.pop()
            if at in reached:
                continue
            reached.add(at)
            if at in self._folders:
                waiting.append(at + 2)
            if at < len(self._tokens) and self._tokens[at] in (_ANY, _IN_FOLDER):
                waiting.append(at + 1)
        return reached


class SourceUri:
    """The objects that a source names: one object, those below a prefix that ends in ``/``, or those a glob matches.

    Args:
        uri: the source.
        include: globs, one of which the name below the prefix must match; all names if there are none.
        exclude: globs, none of which it may match.
    """

    def __init__(self, uri: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        start = _WILDCARD.search(uri)
        self.uri = uri
        self.prefix = uri[: start.start()] if start else uri
        self.is_glob = start is not None
        self.is_object = not self.is_glob and not uri.endswith("/")
        self._include, self._exclude = include, exclude

    @property
    def below(self) -> int:
        """Where the names that `include` and `exclude` see start: behind the last folder of the prefix."""
        return self.prefix.rfind("/") + 1

    def names(self, uri: str) -> bool:
        """Return whether an object belongs to the source."""
        if not is_selected(uri[self.below :], self._include, self._exclude):
            return False
        if self.is_glob:
            return _compiled(self.uri).matches(uri)
        return uri == self.uri if self.is_object else uri.startswith(self.prefix)

    def meets(self, folder: str) -> bool:
        """Return whether an object below a folder may belong to the source."""
        there = f"{folder.rstrip('/')}/"
        return self.prefix.startswith(there) or (not self.is_object and there.startswith(self.prefix))


@functools.lru_cache(maxsize=256)
def _compiled(glob: str) -> Glob:
    return Glob(glob)


def is_selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a name below a prefix matches a source's globs; a glob without ``/`` applies in every folder."""
    return (not include or _matches(name, include)) and not _matches(name, exclude)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(_compiled(glob if "/" in glob else f"**/{glob}").matches(name) for glob in globs)
