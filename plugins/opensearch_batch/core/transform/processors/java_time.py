"""Parses times with patterns of Java's DateTimeFormatter.

As in Data Prepper, a missing hour, minute or second is 0, and a missing year, month or day is the current one. The
default time zone is UTC, as in Amazon OpenSearch Ingestion. Hand-written, because babel cannot parse a time with a
pattern.
Source: java.time.format.DateTimeFormatter, and Data Prepper's ConvertEntryTypeProcessor (2.17).
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.date_pattern import ABBREVIATION_CHARS, DAYS, MONTHS

# Returns milliseconds since the epoch; raises ValueError for a string that does not match the pattern.
ReadTime = Callable[[str], int]
_NOON = 12
_MAX_DAY = 31
_PART = re.compile(r"([A-Za-z])\1*|'(?:[^']|'')*'|.", re.DOTALL)
_HOURS_ONLY, _FOUR, _COLON = r"[+-]\d\d(?:\d\d)?", r"[+-]\d{4}", r"[+-]\d\d:\d\d"
_NUMBERS = {"M": "month", "d": "day", "H": "hour", "k": "hour24", "h": "hour12", "m": "minute", "s": "second"}
# The regular expression for each part of a pattern.
_PARTS: Mapping[str, str] = {
    **dict.fromkeys(("yy", "uu"), r"(?P<year2>\d\d)"),
    **dict.fromkeys(("y", "u", "yyyy", "uuuu"), r"(?P<year>\d{4})"),
    **{letter: rf"(?P<{name}>\d{{1,2}})" for letter, name in _NUMBERS.items()},
    **{letter * 2: rf"(?P<{name}>\d\d)" for letter, name in _NUMBERS.items()},
    **{"S" * count: rf"(?P<fraction>\d{{{count}}})" for count in range(1, 10)},
    "MMM": f"(?P<named>{'|'.join(name[:ABBREVIATION_CHARS] for name in MONTHS)})",
    "MMMM": f"(?P<named>{'|'.join(MONTHS)})",
    **dict.fromkeys(("E", "EE", "EEE"), f"(?:{'|'.join(name[:ABBREVIATION_CHARS] for name in DAYS)})"),
    "EEEE": f"(?:{'|'.join(DAYS)})",
    "a": "(?P<half>AM|PM)",
    **{
        letters: f"(?P<zone>{form})"
        for letters, form in {
            "X": f"Z|{_HOURS_ONLY}",
            "XX": f"Z|{_FOUR}",
            "XXX": f"Z|{_COLON}",
            "x": _HOURS_ONLY,
            "xx": _FOUR,
            "xxx": _COLON,
            **dict.fromkeys(("Z", "ZZ", "ZZZ"), _FOUR),
            "ZZZZZ": f"Z|{_COLON}",
        }.items()
    },
    "[": "(?:",
    "]": ")?",
    "''": "'",
}


def time_reader(pattern: str) -> ReadTime:
    """Return a function that parses times; raise ConfigError if the pattern is invalid, or has unsupported letters."""
    try:
        match = re.compile("".join(_expression(part[0]) for part in _PART.finditer(pattern)), re.ASCII).fullmatch
    except re.error:
        raise ConfigError(f"{pattern!r} repeats a field or has an unclosed bracket; correct it") from None
    today = datetime.now(UTC)

    def read(text: str) -> int:
        matched = match(text)
        if matched is None:
            raise ValueError(f"{text!r} does not match {pattern}")
        return _milliseconds({name: part for name, part in matched.groupdict().items() if part is not None}, today)

    return read


def _expression(part: str) -> str:
    """Return the regular expression for one part of a pattern."""
    if part in _PARTS:
        return _PARTS[part]
    if part.isalpha() or part in "#{}'":
        raise ConfigError(
            f"{part!r} is not supported in a time pattern; use y, M, d, H, h, m, s, S, a, E, X and Z, or quote it"
        )
    return re.escape(part[1:-1].replace("''", "'") if part[0] == "'" else part)


def _milliseconds(parts: dict[str, str], today: datetime) -> int:
    """Return milliseconds since the epoch; as in Java, a day after the end of the month becomes the last day."""
    year = int(parts["year"]) if "year" in parts else 2000 + int(parts["year2"]) if "year2" in parts else today.year
    month = int(parts["month"]) if "month" in parts else _named_month(parts, today)
    day = int(parts.get("day", today.day))
    if day > _MAX_DAY:
        raise ValueError(f"{day} is not a day of a month")
    moment = datetime(
        year,
        month,
        min(day, monthrange(year, month)[1]),
        _hour(parts),
        int(parts.get("minute", 0)),
        int(parts.get("second", 0)),
        tzinfo=_zone(parts.get("zone", "Z")),
    )
    return int(moment.timestamp()) * 1000 + int(parts.get("fraction", "0").ljust(3, "0")[:3])


def _named_month(parts: dict[str, str], today: datetime) -> int:
    if "named" not in parts:
        return today.month
    return next(number for number, name in enumerate(MONTHS, start=1) if name.startswith(parts["named"]))


def _hour(parts: dict[str, str]) -> int:
    if "hour12" in parts:
        return int(parts["hour12"]) % _NOON + (_NOON if parts.get("half") == "PM" else 0)
    return int(parts["hour"]) if "hour" in parts else int(parts.get("hour24", 0)) % (2 * _NOON)


def _zone(text: str) -> timezone:
    if text == "Z":
        return UTC
    digits = text.replace(":", "")
    offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5] or 0))
    return timezone(-offset if text[0] == "-" else offset)
