"""Writes a mapping as YAML in the order of its keys, with comments above the keys."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from opensearch_batch.core.config.yaml_file import Keys, Node

WIDTH = 118
# A comment with this prefix is a command. Commands are not wrapped, so that users can copy them.
COMMAND = "  "
# A line width at which PyYAML folds no value.
_NO_FOLDING = 1 << 20
Notes = Mapping[Keys, Sequence[str]]


class Verbatim(NamedTuple):
    """A YAML node from another file, written with its original quotes."""

    node: Node


def commented(members: Mapping[str, Any], notes: Notes) -> str:
    """Return a mapping as YAML, each key below its comments. The comments at ``()`` are the header of the file."""
    return "".join(f"{line}\n" for line in [*_comments(notes.get((), ()), ""), *_lines(members, notes, (), "")])


def comment(notes: Sequence[str]) -> str:
    """Return the text of a file that contains only comments."""
    return "".join(f"{line}\n" for line in _comments(notes, ""))


def _lines(members: Mapping[str, Any], notes: Notes, keys: Keys, indent: str) -> Iterator[str]:
    for name, value in members.items():
        path = (*keys, name)
        yield from _comments(notes.get(path, ()), indent)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, notes, path, f"{indent}  ")
        else:
            yield from (f"{indent}{line}" for line in _value(name, value))


def _value(name: str, value: object) -> list[str]:
    import yaml

    if not isinstance(value, Verbatim):
        text = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=_NO_FOLDING)
        return str(text).splitlines()
    node = value.node
    if not node.value:
        return [f"{name}: []"]
    text = yaml.serialize(node, Dumper=yaml.SafeDumper, allow_unicode=True, width=_NO_FOLDING)
    return [f"{name}:", *(f"  {line}" for line in text.splitlines())]


def _comments(notes: Sequence[str], indent: str) -> Iterator[str]:
    start = f"{indent}# "
    for note in notes:
        if note.startswith(COMMAND):
            yield f"{start}{note}"
        else:
            yield from textwrap.wrap(
                note,
                WIDTH,
                initial_indent=start,
                subsequent_indent=start,
                break_long_words=False,
                break_on_hyphens=False,
            )
