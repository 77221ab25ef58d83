"""A YAML file is a tree whose every key has a line; a key that stands twice is refused, where YAML keeps the last.

What is wrong in a file is told as ``books.yaml:14 ingest.index: …``, whoever finds it. Hand-written over PyYAML's
nodes, because its loader drops the positions that they have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opensearch_batch.core.errors import ConfigError

Keys = tuple[str | int, ...]
# A node of PyYAML's, which has no types.
Node = Any
NULL = "tag:yaml.org,2002:null"
_SINCE = "; what does not end well begins in line {}: look there too, at hyphens, indentation and quotes"
_AT = re.compile(r" - at `(?P<path>[^`]+)`$")
_KEY = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


class YamlFile:
    """A file and its tree, which is None where the file says nothing.

    Args:
        path: the file.
        root: what the whole of it is called in a message.
        aliases: whether a value may stand for another one (``*name``).

    Raises:
        ConfigError: it cannot be read, is no YAML, or has a key twice.
    """

    def __init__(self, path: Path, *, root: str = "pipeline", aliases: bool = True) -> None:
        self.path = path
        self._root = root
        self.tree = self._read()
        if self.tree is None:
            return
        if not aliases:
            self._refuse_aliases()
        try:
            self._refuse_twice()
        except RecursionError:
            raise ConfigError(f"{path}:1 nested too deep, or an alias contains itself") from None

    def error(self, keys: Sequence[str | int], cause: str) -> ConfigError:
        """Return an error with the place of a key."""
        return ConfigError(f"{self.path}:{self.line(keys)} {dotted(keys) or self._root}: {cause}")

    def line(self, keys: Sequence[str | int]) -> int:
        """Return the line of the deepest of these keys that the file has, counting from 1."""
        line, node = 1, self.tree
        for key in keys:
            found = _child(node, key)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def at(self, keys: Sequence[str | int]) -> Node:
        """Return what stands at keys, None for nothing."""
        node = self.tree
        for key in keys:
            found = _child(node, key)
            if found is None:
                return None
            node = found[1]
        return node

    def value(self) -> Any:  # noqa: ANN401 - YAML
        """Return what the file says, as YAML understands it.

        Raises:
            ConfigError: a value is none that YAML knows.
        """
        import yaml

        if self.tree is None:
            return {}
        try:
            return yaml.constructor.SafeConstructor().construct_document(self.tree)
        except yaml.MarkedYAMLError as error:
            raise self._no_yaml(error) from None
        except ValueError as error:
            # A date or number that looks like one and is none.
            raise ConfigError(f"{self.path}:1 no YAML: {error}") from None

    def _read(self) -> Node:
        import yaml

        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}:1 cannot be read: {error}") from error
        try:
            # libyaml reads five times as fast, and not every installation of PyYAML has it.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        except yaml.reader.ReaderError as error:
            raise self._no_character(text, error) from None
        try:
            return self._document(loader)
        except yaml.reader.ReaderError as error:
            raise self._no_character(text, error) from None
        except yaml.MarkedYAMLError as error:
            # Its own text has a piece of the file, which may be a password.
            raise self._no_yaml(error) from None
        except RecursionError:
            raise ConfigError(f"{self.path}:1 nested too deep") from None
        finally:
            loader.dispose()

    def _document(self, loader: Any) -> Node:  # noqa: ANN401 - a loader of PyYAML's
        """Return the one document; what follows it may be a line ``---``, and nothing more."""
        node = loader.get_node() if loader.check_node() else None
        while loader.check_node():
            other = loader.get_node()
            if other.tag != NULL:
                raise ConfigError(
                    f"{self.path}:{other.start_mark.line + 1} another document begins here, and a file is one; "
                    "write it into a file of its own, and take the line --- away"
                )
        return node

    def _no_yaml(self, error: Any) -> ConfigError:  # noqa: ANN401 - an error of PyYAML's
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        start = error.context_mark.line + 1 if error.context_mark else line
        # What is indented wrongly stands where the part begins, and is noticed where it ends.
        since = "" if start == line else _SINCE.format(start)
        return ConfigError(f"{self.path}:{line} no YAML: {error.problem}{since}")

    def _no_character(self, text: str, error: Any) -> ConfigError:  # noqa: ANN401 - an error of PyYAML's
        line = text.count("\n", 0, error.position) + 1
        return ConfigError(f"{self.path}:{line} no YAML: {error.reason}")

    def _refuse_aliases(self) -> None:
        seen: set[int] = set()
        waiting = [self.tree]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                line = node.start_mark.line + 1
                raise ConfigError(f"{self.path}:{line} an alias (*name) stands for this value; write it out there")
            seen.add(id(node))
            if node.id == "mapping":
                waiting.extend(each for pair in node.value for each in pair)
            elif node.id == "sequence":
                waiting.extend(node.value)

    def _refuse_twice(self) -> None:
        for keys, node in _mappings(self.tree):
            seen: dict[str, int] = {}
            for name, _ in node.value:
                line = name.start_mark.line + 1
                if name.id != "scalar":
                    raise ConfigError(f"{self.path}:{line} {dotted(keys) or self._root}: a key must be a text")
                if name.value in seen:
                    place = dotted((*keys, name.value))
                    raise ConfigError(f"{self.path}:{line} {place}: the key stands in line {seen[name.value]} already")
                seen[name.value] = line


def dotted(keys: Sequence[str | int]) -> str:
    """Return keys as a message writes them: ``sink[0].opensearch``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def place_in(message: str) -> tuple[str, Keys]:
    """Split msgspec's message, which ends with a path, into cause and keys."""
    at = _AT.search(message)
    # A member of an object is told without its name.
    path = at["path"].replace("[...]", "") if at else ""
    return _AT.sub("", message), tuple(name or int(number) for name, number in _KEY.findall(path))


def _mappings(node: Node, keys: Keys = ()) -> Iterator[tuple[Keys, Node]]:
    """Yield the mappings of a tree."""
    if node.id == "scalar":
        return
    if node.id == "mapping":
        yield keys, node
        for name, value in node.value:
            yield from _mappings(value, (*keys, str(name.value)))
    else:
        for at, value in enumerate(node.value):
            yield from _mappings(value, (*keys, at))


def _child(node: Node, key: str | int) -> tuple[Node, Node] | None:
    """Return where a key stands in a node, and its value."""
    kind = getattr(node, "id", None)
    if kind == "mapping":
        return next(((name, value) for name, value in node.value if name.value == key), None)
    if kind == "sequence" and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None
