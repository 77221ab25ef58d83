"""The source of the benchmark `incremental`, and what changes in it from one night to the next.

Objects of JSON Lines on the local disk, each record with an `_id`, a text, which the model reads, and other fields.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path

OBJECTS = 100
# One in so many records is edited by `edit`.
EDITED_OF = 100
NEW_A_NIGHT = 10
_WORDS_OF_A_TEXT, _TEXTS = 30, 1024
_WRITE_BUFFER_BYTES = 1 << 20


def write_source(folder: Path, records: int) -> None:
    """Write the records to `OBJECTS` objects, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    each = records // OBJECTS
    for number in range(OBJECTS):
        _write(folder / _name(number), map(record, range(number * each, (number + 1) * each)))


def record(number: int, *, edition: int = 1) -> bytes:
    """Return a record of some 300 bytes, without its line end; its text has its number and edition."""
    text = _texts()[number * 7919 % _TEXTS]
    return (
        f'{{"_id":"record-{number:09d}","title":"record {number}","text":"{text} {number} {edition}",'
        f'"metadata":{{"language":"en","page":{number % 400}}}}}'
    ).encode()


def edit(folder: Path, *, objects: int = OBJECTS) -> int:
    """Edit the text of every `EDITED_OF`th record in so many objects; return the number of edited records."""
    edited = 0
    for path in _objects(folder)[:objects]:
        lines = path.read_bytes().splitlines()
        chosen = range(0, len(lines), EDITED_OF)
        for at in chosen:
            lines[at] = edited_text(lines[at])
        _write(path, lines)
        edited += len(chosen)
    return edited


def edited_text(line: bytes) -> bytes:
    """Return a record with another text."""
    return line.replace(b'","metadata"', b' again","metadata"')


def move_all(folder: Path) -> None:
    """Deal the records to objects with other names, in another order."""
    old = _objects(folder)
    lines = [path.read_bytes().splitlines() for path in old]
    for number in range(OBJECTS):
        _write(
            folder / f"moved-{_name(number)}",
            (line for object_lines in lines for line in object_lines[number::OBJECTS]),
        )
    for path in old:
        path.unlink()


def append(folder: Path, first: int, count: int = 1) -> None:
    """Append records with numbers from `first` on to the last object."""
    path = _objects(folder)[-1]
    _write(path, [*path.read_bytes().splitlines(), *map(record, range(first, first + count))])


def insert_on_top(folder: Path, number: int) -> None:
    """Insert a record before the first record of the first object."""
    path = _objects(folder)[0]
    _write(path, [record(number), *path.read_bytes().splitlines()])


def edit_one(folder: Path) -> None:
    """Edit the text of one record in the middle of the first object."""
    path = _objects(folder)[0]
    lines = path.read_bytes().splitlines()
    lines[len(lines) // 2] = edited_text(lines[len(lines) // 2])
    _write(path, lines)


def delete_first(folder: Path) -> None:
    """Delete the first record of the first object."""
    path = _objects(folder)[0]
    _write(path, path.read_bytes().splitlines()[1:])


def add_object(folder: Path, name: str, first: int, count: int) -> None:
    """Write an object with records with numbers from `first` on."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / name, map(record, range(first, first + count)))


def _objects(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _name(number: int) -> str:
    return f"{number:03d}.jsonl"


def _write(path: Path, lines: Iterable[bytes]) -> None:
    # The old file stays whole: a copy of the source may share it.
    new = path.with_suffix(".new")
    with new.open("wb", buffering=_WRITE_BUFFER_BYTES) as file:
        file.writelines(line + b"\n" for line in lines)
    new.replace(path)


@cache
def _texts() -> list[str]:
    source = random.Random(7)  # noqa: S311 - test data
    words = [
        f"{first}{second}"
        for first in ("sea", "sun", "wind", "book", "star")
        for second in ("light", "ship", "mark", "s", "")
    ]
    return [" ".join(source.choices(words, k=_WORDS_OF_A_TEXT)) for _ in range(_TEXTS)]
