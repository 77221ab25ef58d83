"""Matches object names with globs, and decides which objects belong to a source URI.

``*`` and ``?`` do not match ``/``; ``**`` does. ``**/`` also matches the empty string. Brackets are literal.
A glob may come from a user's request, so the matching time is bounded by the product of the lengths of glob and name:
the matcher tracks all possible positions in the glob at once and does not backtrack. `fnmatch` lets ``*`` match ``/``,
and a translation to `re` backtracks exponentially for some globs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from opensearch_batch.core.errors import ConfigError

MAX_GLOB_CHARS = 1024
# The maximum number of results of `_step` that a glob caches; nearly all names of a source need the same few.
MAX_CACHED_STEPS = 10_000
_WILDCARD = re.compile(r"[*?]")
_ANY, _IN_FOLDER, _ONE = "**", "*", "?"
Positions = frozenset[int]


class Glob:
    """A compiled glob; raises ConfigError for a glob that is longer than the name of an object can be."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_GLOB_CHARS:
            raise ConfigError(f"{text[:80]}…: a glob has at most {MAX_GLOB_CHARS} characters")
        self._tokens: list[str] = []
        self._optional_folders: set[int] = set()
        for part in re.findall(r"\*\*/|\*\*|.", text, re.DOTALL):
            if part == "**/":
                self._optional_folders.add(len(self._tokens))
                self._tokens += [_ANY, "/"]
            else:
                self._tokens.append(part)
        self._cache: dict[tuple[Positions, str], Positions] = {}

    def matches(self, name: str) -> bool:
        """Return whether the whole name matches."""
        positions = frozenset(self._reachable(0))
        for char in name:
            key = (positions, char)
            after = self._cache.get(key)
            if after is None:
                if len(self._cache) >= MAX_CACHED_STEPS:
                    self._cache.clear()
                after = self._cache[key] = self._step(positions, char)
            positions = after
        return len(self._tokens) in positions

    def _step(self, positions: Positions, char: str) -> Positions:
        """Return the positions in the glob after one more character of the name."""
        reached: set[int] = set()
        for position in positions:
            token = self._tokens[position] if position < len(self._tokens) else ""
            if token == _ANY or (token == _IN_FOLDER and char != "/"):
                reached.add(position)
                reached |= self._reachable(position + 1)
            elif token == char or (token == _ONE and char != "/"):
                reached |= self._reachable(position + 1)
        return frozenset(reached)

    def _reachable(self, start: int) -> set[int]:
        """Return a position, and the later positions that can be reached from it without a character."""
        reached: set[int] = set()
        waiting = [start]
        while waiting:
            position = waiting.pop()
            if position in reached:
                continue
            reached.add(position)
            if position in self._optional_folders:
                waiting.append(position + 2)
            if position < len(self._tokens) and self._tokens[position] in (_ANY, _IN_FOLDER):
                waiting.append(position + 1)
        return reached


class SourceUri:
    """Decides which objects belong to a source URI: one object, a prefix that ends in ``/``, or a glob.

    The name of an object below the prefix must match one of the globs `include`, if there are any, and none of
    `exclude`.
    """

    def __init__(self, uri: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        start = _WILDCARD.search(uri)
        self.uri = uri
        self.prefix = uri[: start.start()] if start else uri
        self.is_glob = start is not None
        self.is_object = not self.is_glob and not uri.endswith("/")
        self._include, self._exclude = include, exclude

    @property
    def name_offset(self) -> int:
        """The offset, in an object's URI, of the name below the prefix: after the last ``/`` of the prefix."""
        return self.prefix.rfind("/") + 1

    def contains(self, uri: str) -> bool:
        """Return whether an object belongs to the source."""
        if not is_selected(uri[self.name_offset :], self._include, self._exclude):
            return False
        if self.is_glob:
            return _compiled(self.uri).matches(uri)
        return uri == self.uri if self.is_object else uri.startswith(self.prefix)

    def overlaps(self, folder: str) -> bool:
        """Return whether an object below a folder may belong to the source."""
        prefix = f"{folder.rstrip('/')}/"
        return self.prefix.startswith(prefix) or (not self.is_object and prefix.startswith(self.prefix))


@functools.lru_cache(maxsize=256)
def _compiled(glob: str) -> Glob:
    return Glob(glob)


def is_selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a name below a prefix matches a source's globs; a glob without ``/`` applies in every folder."""
    return (not include or _matches(name, include)) and not _matches(name, exclude)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(_compiled(glob if "/" in glob else f"**/{glob}").matches(name) for glob in globs)
