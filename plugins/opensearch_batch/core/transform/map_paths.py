"""Parses the paths of a field map: ``$.path`` and ``source[N].$.path``."""

from __future__ import annotations

import re

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.json_path import plain_steps

ID_FIELD = "_id"
# Paths of a document's id and routing value in a hit of a search; most documents have no routing value.
HIT_ID, HIT_ROUTING = "$._id", "$._routing"
# The field of a map that stands for all members of a record, as in ``ingest_fields: [$.*]``.
ALL_MEMBERS = "*"
_FIRST_NAME = re.compile(r"\s*(?:\$\s*\.?)?(?:\[['\"](?P<quoted>[^'\"]+)['\"]\]|(?P<plain>[^.\[\s$]+))")
_SOURCE = re.compile(r"\s*source\[(\d+)\]\.?(?=[$])")
_SOURCE_WITHOUT_ROOT = re.compile(r"\s*source\[(\d+)\]\.?(?P<rest>.+)")
# Text before the $ of a path, outside quotes and filters, which is probably a misspelled source[N].
_BEFORE_ROOT = re.compile(r"[^$'\"(?]+(?=\$[.\[])")


class SourcePath(msgspec.Struct, frozen=True):
    """A path, and the position of the source from which it reads."""

    source: int
    path: str


def last_name(path: str) -> str:
    """Return the field name of an ``ingest_fields`` path: the text after its last dot, as in ML Commons."""
    return path.rpartition(".")[2]


def is_optional_routing(path: str | None) -> bool:
    """Return whether routing may be missing: the path ends in `_routing`, which most hits of a search do not have."""
    return path is not None and last_name(path) == last_name(HIT_ROUTING)


def first_name(path: str) -> str | None:
    """Return the name of the member with which a path starts, None if it starts in another way."""
    match = _FIRST_NAME.match(path)
    return match and (match["quoted"] or match["plain"])


def overlap(one: str, other: str) -> bool:
    """Return whether the value at one path may be, contain, or be a part of the value at another."""
    steps, others = plain_steps(one.strip()), plain_steps(other.strip())
    if steps is None or others is None:
        return True
    common = min(len(steps), len(others))
    return steps[:common] == others[:common]


def paths_of(location: str, paths: object, sources: int) -> list[SourcePath]:
    """Return the paths of a field, at most one for each source; as in ML Commons, the last path of a source is used."""
    listed = paths if isinstance(paths, list) and paths else [paths]
    last = {path.source: path for path in (_path(location, path, sources) for path in listed)}
    return [last[source] for source in sorted(last)]


def _path(location: str, path: object, sources: int) -> SourcePath:
    """Return a path and its source; raise ConfigError if the path is no string, or the source is unknown."""
    if not isinstance(path, str) or not path.strip():
        raise ConfigError(f"{location}: expected a path like $.text, got {path!r}")
    prefix = _SOURCE.match(path)
    if prefix is None:
        if loose := _SOURCE_WITHOUT_ROOT.match(path):
            hint = f"source[{loose[1]}].$.{loose['rest'].lstrip('.')}"
            raise ConfigError(f"{location}: {path!r} has no $ after its source; write {hint}")
        if before := _BEFORE_ROOT.match(path.lstrip()):
            hint = f"source[0].{path.lstrip()[before.end() :]}"
            raise ConfigError(f"{location}: {before[0]!r} before the $ is not a source; write {hint}")
        if sources > 1:
            raise ConfigError(f"{location}: {path!r} names none of the {sources} sources; write source[0].{path}")
        return SourcePath(0, path.strip())
    source = int(prefix[1])
    if source >= sources:
        count = "1 source" if sources == 1 else f"{sources} sources"
        raise ConfigError(
            f"{location}: no source[{source}]; the request has {count}. Did you mean source[{sources - 1}]?"
        )
    return SourcePath(source, path[prefix.end() :])


def id_path_of_each_source(ids: list[SourcePath], sources: int) -> list[str | None]:
    """Return the id path of each source, by default the only one of the others; raise ConfigError without a default."""
    by_source = {path.source: path.path for path in ids}
    if sources == 1:
        return [by_source.get(0)]
    shared = set(by_source.values())
    for source in range(sources):
        if source not in by_source and len(shared) != 1:
            paths = "different paths" if shared else "no path at all"
            raise ConfigError(
                f"field_map.{ID_FIELD}: source[{source}] has no id path and the others have {paths}; "
                f'add one, like "source[{source}].$.custom_id"'
            )
    return [by_source.get(source) or next(iter(shared)) for source in range(sources)]
