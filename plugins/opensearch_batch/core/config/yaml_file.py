"""Reads a YAML file as nodes with line numbers, and locates errors: ``books.yaml:14 ingest.index: …``.

A duplicate key is an error; PyYAML would keep its last value. The module works on PyYAML's nodes, because the values
that PyYAML's loader returns have no line numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import ConfigError

if TYPE_CHECKING:
    import yaml

Keys = tuple[str | int, ...]
# A PyYAML node, or None. PyYAML's type stubs do not declare the type of a node's value.
Node = Any
# Airflow reads the file each time it parses DAG files, and a parse has a time limit.
MAX_FILE_BYTES, MAX_VALUES, MAX_DEPTH = 1_000_000, 100_000, 100
NULL = "tag:yaml.org,2002:null"
_BLOCK_START = "; the block starts on line {}: check its hyphens, indentation and quotes"
_PATH_SUFFIX = re.compile(r" - at `(?P<path>[^`]+)`$")
_PATH_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
# Error messages of msgspec.
UNKNOWN_KEY = re.compile(r"Object contains unknown field `(?P<key>[^`]+)`")
MISSING_KEY = re.compile(r"Object missing required field `(?P<key>[^`]+)`")
NOT_ONE_OF = re.compile(r"Invalid enum value '(?P<value>.*)'", re.DOTALL)


class YamlFile:
    """A YAML file; `tree` is its root node, None if the file is empty, and `root` the name of the root in messages.

    ConfigError is raised if the file cannot be read, is not valid YAML, is too large or too deeply nested, or has a
    duplicate key, a key that is a list or a mapping, or a second document; with ``aliases=False`` also if it has an
    alias.
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
            if _size(self.tree, {}) > MAX_VALUES:
                raise ConfigError(
                    f"{path}:1 more than {MAX_VALUES} values with aliases (*name) expanded, or an alias that contains "
                    "itself; split the file, or use fewer aliases"
                )
            self._refuse_duplicates()
        except RecursionError:
            raise ConfigError(f"{path}:1 nested too deeply by its aliases (*name)") from None

    def error(self, keys: Sequence[str | int], cause: str) -> ConfigError:
        """Return an error with the location of the value at a path of keys."""
        return ConfigError(f"{self.path}:{self.line(keys)} {dotted(keys) or self._root}: {cause}")

    def line(self, keys: Sequence[str | int]) -> int:
        """Return the line (from 1) of the deepest key of a path that exists in the file."""
        line, node = 1, self.tree
        for key in keys:
            child = _child(node, key)
            if child is None:
                break
            line, node = child[0].start_mark.line + 1, child[1]
        return line

    def node(self, keys: Sequence[str | int]) -> Node:
        """Return the node at a path of keys, or None if the path does not exist."""
        return node_at(self.tree, keys)

    def value(self) -> object:
        """Return the content as Python values, as in YAML 1.1, and ``{}`` for an empty file.

        Raise ConfigError for an invalid tag or value.
        """
        import yaml

        if self.tree is None:
            return {}
        try:
            value: object = yaml.constructor.SafeConstructor().construct_document(self.tree)
        except yaml.MarkedYAMLError as error:
            raise self._yaml_error(error) from None
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            # A date, number or tagged value that PyYAML cannot construct.
            raise ConfigError(f"{self.path}:1 not valid YAML: {error}") from None
        return value

    def _read(self) -> Node:
        import yaml

        try:
            if (size := self.path.stat().st_size) > MAX_FILE_BYTES:
                raise ConfigError(f"{self.path}:1 file too large: {size} bytes; the maximum is {MAX_FILE_BYTES}")
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}:1 cannot be read: {error}") from error
        # libyaml is five times as fast, but PyYAML may be installed without it.
        loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            self._refuse_deep_nesting(yaml.parse(text, Loader=loader_class))
            loader = loader_class(text)
            try:
                return self._document(loader)
            finally:
                loader.dispose()
        except yaml.reader.ReaderError as error:
            raise self._character_error(text, error) from None
        except yaml.MarkedYAMLError as error:
            # The original error message quotes the file, which may contain a password.
            raise self._yaml_error(error) from None

    def _refuse_deep_nesting(self, events: Iterator[yaml.Event]) -> None:
        """Raise ConfigError if the nesting exceeds `MAX_DEPTH`; very deep nesting makes libyaml crash the process."""
        import yaml

        depth = 0
        for event in events:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigError(f"{self.path}:{line} nested too deeply; at most {MAX_DEPTH} levels")

    def _document(self, loader: yaml.SafeLoader) -> Node:
        """Return the root node of the only document; empty documents may follow it."""
        node = loader.get_node() if loader.check_node() else None
        while loader.check_node():
            other: Node = loader.get_node()
            if other.tag != NULL:
                line = other.start_mark.line + 1
                cause = "a second YAML document starts here; move it to its own file and remove the line ---"
                raise ConfigError(f"{self.path}:{line} {cause}")
        return node

    def _yaml_error(self, error: yaml.MarkedYAMLError) -> ConfigError:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        start = error.context_mark.line + 1 if error.context_mark else line
        # The parser reports wrong indentation at the end of a block; the mistake is often at the start of the block.
        origin = "" if start == line else _BLOCK_START.format(start)
        return ConfigError(f"{self.path}:{line} not valid YAML: {error.problem}{origin}")

    def _character_error(self, text: str, error: yaml.reader.ReaderError) -> ConfigError:
        line = text.count("\n", 0, error.position) + 1
        return ConfigError(f"{self.path}:{line} not valid YAML: {error.reason}")

    def _refuse_aliases(self) -> None:
        seen: set[int] = set()
        pending = [self.tree]
        while pending:
            node = pending.pop()
            if id(node) in seen:
                line = node.start_mark.line + 1
                cause = "an alias (*name) refers to this value; aliases are not supported, so repeat the value"
                raise ConfigError(f"{self.path}:{line} {cause}")
            seen.add(id(node))
            if node.id == "mapping":
                pending.extend(part for pair in node.value for part in pair)
            elif node.id == "sequence":
                pending.extend(node.value)

    def _refuse_duplicates(self) -> None:
        for keys, node in _mappings(self.tree):
            seen: dict[str, int] = {}
            for name, _ in node.value:
                line = name.start_mark.line + 1
                if name.id != "scalar":
                    cause = "a key must be a scalar, not a list or a mapping"
                    raise ConfigError(f"{self.path}:{line} {dotted(keys) or self._root}: {cause}")
                if name.value in seen:
                    cause = f"duplicate key, first defined on line {seen[name.value]}; remove one"
                    raise ConfigError(f"{self.path}:{line} {dotted((*keys, name.value))}: {cause}")
                seen[name.value] = line


def node_at(node: Node, keys: Sequence[str | int]) -> Node:
    """Return the node at a path of keys below a node, or None if the path does not exist."""
    for key in keys:
        child = _child(node, key)
        if child is None:
            return None
        node = child[1]
    return node


def dotted(keys: Sequence[str | int]) -> str:
    """Format a path of keys for messages, like ``sink[0].opensearch``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def split_message(message: str) -> tuple[str, Keys]:
    """Split an error message of msgspec into the cause and the path of keys at its end."""
    match = _PATH_SUFFIX.search(message)
    # msgspec writes [...] for the key of a dict.
    path = match["path"].replace("[...]", "") if match else ""
    return _PATH_SUFFIX.sub("", message), tuple(name or int(number) for name, number in _PATH_STEP.findall(path))


def _size(node: Node, sizes: dict[int, int]) -> int:
    """Return the number of values of a tree with its aliases expanded; over `MAX_VALUES` if an alias contains itself.

    `sizes` stores the size of each node by identity, so that a node with a thousand aliases is visited only once.
    """
    stored = sizes.get(id(node))
    if stored is not None:
        return stored
    # An alias inside this node that refers to it gets this size, so the total exceeds `MAX_VALUES`.
    sizes[id(node)] = MAX_VALUES + 1
    children = [part for pair in node.value for part in pair] if node.id == "mapping" else node.value
    size = 1 if node.id == "scalar" else 1 + sum(_size(child, sizes) for child in children)
    sizes[id(node)] = size
    return size


def _mappings(node: Node, keys: Keys = ()) -> Iterator[tuple[Keys, Node]]:
    """Yield each mapping in a tree with its path of keys."""
    if node.id == "scalar":
        return
    if node.id == "mapping":
        yield keys, node
        for name, value in node.value:
            yield from _mappings(value, (*keys, str(name.value)))
    else:
        for number, value in enumerate(node.value):
            yield from _mappings(value, (*keys, number))


def _child(node: Node, key: str | int) -> tuple[Node, Node] | None:
    """Return the node of a key and the node of its value, or None if the key does not exist."""
    kind = getattr(node, "id", None)
    if kind == "mapping":
        return next(((name, value) for name, value in node.value if name.value == key), None)
    if kind == "sequence" and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None
