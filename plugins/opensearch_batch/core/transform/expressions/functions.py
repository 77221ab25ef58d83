"""Functions of the expression language. They accept the same arguments and fail in the same cases as in Data Prepper.

An argument is a value or a `KeyArgument`. A `KeyArgument` is a key without quotes, whose value the function reads.
Source: the ExpressionFunction classes of data-prepper-expression (2.17).
"""

from __future__ import annotations

import functools
import ipaddress
import operator
import re
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.date_pattern import compile_date_pattern
from opensearch_batch.core.transform.events.event import MISSING, Event, Key, elements_of, members_of, value_of
from opensearch_batch.core.transform.events.java_values import EvaluationError, operand, text_of

# Metadata key of the event type. getMetadata removes a leading slash, so it cannot read this key.
EVENT_TYPE = "/eventType"
DEFAULT_EVENT_TYPE = "LOG"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_DATE_ARGUMENTS, _MAX_DATE_ARGUMENTS = 2, 4
_MAX_OFFSET = timedelta(hours=18)
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(?::\d\d)?)(?:\.(\d{0,9}))?(?:([Zz]|[+-]\d\d:\d\d(?::\d\d)?)(\[[^\]]+\])?)?",
    re.ASCII,
)
_OFFSET = re.compile(r"(?:UTC|GMT|UT)?([+-])(\d{1,2}|\d\d:[0-5]\d(?::[0-5]\d)?|\d\d[0-5]\d(?:[0-5]\d)?)", re.ASCII)
Arguments = list[object]
Function = Callable[[Event, Arguments], object]
# Returns a part of a string, before or after a delimiter.
PartOf = Callable[[str, str], str]


class KeyArgument(msgspec.Struct, frozen=True):
    """A key that is passed to a function instead of its value."""

    key: Key


def utf16_length(text: str) -> int:
    """Return the length in UTF-16 code units, as in Java."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def zone_of(text: str) -> tzinfo:
    """Return the time zone of a region or offset, like ``UTC-8``; raise EvaluationError for any other string."""
    offset = _OFFSET.fullmatch(text)
    if offset:
        digits = offset[2].replace(":", "")
        hours, minutes, seconds = (int(digits[start : start + 2] or 0) for start in (0, 2, 4))
        size = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        if size <= _MAX_OFFSET:
            return timezone(-size if offset[1] == "-" else size)
    if text == "Z":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo("UTC" if text == "UT" else text)
    except (KeyError, ValueError, OSError):
        raise EvaluationError(f"{text!r} is not a time zone") from None


def _length(event: Event, arguments: Arguments) -> int | None:
    (argument,) = _exactly(arguments, 1)
    if type(argument) is str:
        return utf16_length(argument)
    node = event.find(_key(argument))
    members = members_of(node)
    # Only one level is decoded, because the value may be a long vector.
    container = elements_of(node) if members is None else members
    if container is not None:
        return len(container)
    value = None if node is MISSING else value_of(node)
    return None if value is None else utf16_length(_text(value))


def _has_tags(event: Event, arguments: Arguments) -> bool:
    if not arguments or not all(_text(tag) for tag in arguments):
        raise EvaluationError("hasTags() requires strings that are not empty")
    return event.tags.issuperset(arguments)


def _get_metadata(event: Event, arguments: Arguments) -> object:
    (argument,) = _exactly(arguments, 1)
    name = _text(argument).strip().removeprefix("/")
    path = name.rstrip("/").split("/") if "/" in name.rstrip("/") else [name]
    value: Any = event.metadata
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return operand(value)


def _string_test(holds: Callable[[str, str], bool]) -> Function:
    """Return a function that tests two strings; the test is false if a key has no value."""

    def test(event: Event, arguments: Arguments) -> bool:
        first, second = _exactly(arguments, 2)
        # If the first argument has no value, the second argument is not read.
        text = _text_of(event, first)
        part = None if text is None else _text_of(event, second)
        return text is not None and part is not None and holds(text, part)

    return test


def _text_of(event: Event, argument: object) -> str | None:
    """Return a string argument, or the string at a key (None if the event has no value at the key)."""
    if type(argument) is not KeyArgument:
        return _text(argument)
    value = event.value(argument.key)
    return None if value is None else _text(value)


def _cidr_contains(event: Event, arguments: Arguments) -> bool:
    if len(arguments) < 2:  # noqa: PLR2004 - a key and a block
        raise EvaluationError("cidrContains() requires a key and at least one CIDR block")
    blocks = [_text(block) for block in arguments[1:]]
    value = event.value(_key(arguments[0]))
    if value is None:
        return False
    if isinstance(value, dict | list):
        raise EvaluationError("cidrContains() requires the key of an IP address")
    try:
        # Data Prepper accepts an integer as an IPv4 address.
        address = ipaddress.ip_address(int(value) if type(value) is int else text_of(value).strip())
    except ValueError:
        raise EvaluationError(f"{value!r} is not an IP address") from None
    return any(address in block for block in map(_block, blocks))


@functools.lru_cache(maxsize=256)
def _block(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Parse a CIDR block; as in Data Prepper, a block with host bits is a single address."""
    try:
        block = ipaddress.ip_interface(text)
    except ValueError:
        raise EvaluationError(f"{text!r} is not a CIDR block") from None
    return block.network if block.ip == block.network.network_address else ipaddress.ip_network(block.ip)


def _join(event: Event, arguments: Arguments) -> object:
    if len(arguments) not in (1, 2):
        raise EvaluationError("join() requires a key, with an optional delimiter before it")
    delimiter = _text(arguments[0]).replace(r"\\,", ",") if len(arguments) > 1 else ","
    value = event.value(_key(arguments[-1]))
    if isinstance(value, list):
        return _joined(value, delimiter)
    if not isinstance(value, dict):
        raise EvaluationError("join() requires the key of an array or object")
    return {name: _joined_or_kept(member, delimiter) for name, member in value.items()}


def _joined_or_kept(member: object, delimiter: str) -> object:
    return _joined(member, delimiter) if isinstance(member, list) and None not in member else member


def _joined(elements: list[Any], delimiter: str) -> str:
    if None in elements:
        raise EvaluationError("join() does not accept an array that contains null")
    return delimiter.join(map(text_of, elements))


def _get_event_type(event: Event, arguments: Arguments) -> str:
    _exactly(arguments, 0)
    return str(event.metadata.get(EVENT_TYPE, DEFAULT_EVENT_TYPE))


def _format_date_time(event: Event, arguments: Arguments) -> str:
    if not _MIN_DATE_ARGUMENTS <= len(arguments) <= _MAX_DATE_ARGUMENTS:
        raise EvaluationError("formatDateTime() requires a key, a pattern, and at most two time zones")
    pattern, *zones = (_text(argument).strip() for argument in arguments[1:])
    target_zone, source_zone = [*map(zone_of, zones), UTC, UTC][:2]
    try:
        return compile_date_pattern(pattern)(_moment(event.value(_key(arguments[0])), source_zone, target_zone))
    except (ConfigError, ValueError, OverflowError) as error:
        raise EvaluationError(f"formatDateTime(): {error}") from None


def _moment(value: object, source_zone: tzinfo, target_zone: tzinfo) -> datetime:
    """Parse milliseconds since the epoch or an ISO 8601 time; `source_zone` applies to a time without a zone.

    As in Data Prepper, a time with an offset and without a region keeps its offset if `source_zone` and
    `target_zone` are the same.
    """
    if type(value) is int or type(value) is float:
        return (_EPOCH + timedelta(milliseconds=int(value))).astimezone(target_zone)
    iso = _ISO.fullmatch(value) if type(value) is str else None
    if iso is None:
        raise EvaluationError(f"{value!r} is neither an ISO 8601 time nor milliseconds since the epoch")
    seconds, fraction, offset, region = iso.groups()
    moment = datetime.fromisoformat(seconds).replace(microsecond=int(f"{fraction or 0:0<6}"[:6]))
    if offset is None:
        return moment.replace(tzinfo=source_zone).astimezone(target_zone)
    moment = moment.replace(tzinfo=zone_of(offset.upper()))
    return moment if region is None and source_zone == target_zone else moment.astimezone(target_zone)


def _now(event: Event, arguments: Arguments) -> int:  # noqa: ARG001 - one signature
    _exactly(arguments, 0)
    return time.time_ns() // 1_000_000


def _generate_uuid(event: Event, arguments: Arguments) -> str:  # noqa: ARG001 - one signature
    _exactly(arguments, 0)
    return str(uuid.uuid4())


def _to_json_string(event: Event, arguments: Arguments) -> str:
    _exactly(arguments, 0)
    return msgspec.json.format(event.to_json(), indent=-1).decode()


def _substring(part_of: PartOf) -> Function:
    """Return a function that returns a part of a string, or the whole string if the delimiter is empty or missing."""

    def substring(event: Event, arguments: Arguments) -> str | None:
        texts: list[str | None] = []
        # `_text_of` is inlined, because its calls would take a fifth of the time.
        for argument in _exactly(arguments, 2):
            if type(argument) is KeyArgument:
                value = event.value(argument.key)
                texts.append(None if value is None else _text(value))
            else:
                texts.append(_text(argument))
        source, delimiter = texts
        return part_of(source, delimiter) if source is not None and delimiter else source

    return substring


def _exactly(arguments: Arguments, count: int) -> Arguments:
    if len(arguments) != count:
        raise EvaluationError(
            f"the function requires {count} argument{'' if count == 1 else 's'}, not {len(arguments)}"
        )
    return arguments


def _key(argument: object) -> Key:
    if type(argument) is not KeyArgument:
        raise EvaluationError("an argument of the function must be a key without quotes")
    return argument.key


def _text(value: object) -> str:
    if type(value) is not str:
        raise EvaluationError("an argument of the function must be a string")
    return value


FUNCTIONS: Mapping[str, Function] = {
    "length": _length,
    "hasTags": _has_tags,
    "getMetadata": _get_metadata,
    "contains": _string_test(operator.contains),
    "cidrContains": _cidr_contains,
    "join": _join,
    "startsWith": _string_test(str.startswith),
    "getEventType": _get_event_type,
    "formatDateTime": _format_date_time,
    "now": _now,
    "generateUuid": _generate_uuid,
    "substringAfter": _substring(lambda text, mark: text.partition(mark)[2] if mark in text else text),
    "substringAfterLast": _substring(lambda text, mark: text.rpartition(mark)[2]),
    "substringBefore": _substring(lambda text, mark: text.partition(mark)[0]),
    "substringBeforeLast": _substring(lambda text, mark: text.rpartition(mark)[0] if mark in text else text),
    "toJsonString": _to_json_string,
}
