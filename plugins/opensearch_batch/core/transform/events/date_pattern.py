"""Formats times with patterns of Java's DateTimeFormatter; rejects unsupported letters.

Hand-written because babel rounds fractions of a second (``SSS`` of 0.9995 s is 1000) where Java truncates them, and
accepts invalid patterns.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from datetime import datetime

from opensearch_batch.core.errors import ConfigError

Formatter = Callable[[datetime], str]
DATE_PLACEHOLDER = re.compile(r"%\{(.*?)\}")
_INVALID_IN_NAMES = frozenset('#\\/*?"<>|,:')
_UNITS_BELOW_HOURS = frozenset("msSAnN")
_PART = re.compile(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)|[^A-Za-z'\[\]{}#]")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ABBREVIATION_CHARS = 3
_MAX_FRACTION = 9
# For each pattern letter: the maximum number of repetitions, and the function that returns the value.
_NUMBERS: Mapping[str, tuple[int, Callable[[datetime], int]]] = {
    "y": (19, lambda time: time.year),
    "u": (19, lambda time: time.year),
    "M": (2, lambda time: time.month),
    "d": (2, lambda time: time.day),
    "D": (3, lambda time: time.timetuple().tm_yday),
    "H": (2, lambda time: time.hour),
    "h": (2, lambda time: time.hour % 12 or 12),
    "m": (2, lambda time: time.minute),
    "s": (2, lambda time: time.second),
}
_SPECIAL_LETTERS: Mapping[str, Formatter] = {
    "MMM": lambda time: MONTHS[time.month - 1][:ABBREVIATION_CHARS],
    "MMMM": lambda time: MONTHS[time.month - 1],
    **dict.fromkeys(("E", "EE", "EEE"), lambda time: DAYS[time.weekday()][:ABBREVIATION_CHARS]),
    "EEEE": lambda time: DAYS[time.weekday()],
    "a": lambda time: "AM" if time.hour < 12 else "PM",  # noqa: PLR2004 - noon
    "yy": lambda time: f"{time.year % 100:02}",
    "uu": lambda time: f"{time.year % 100:02}",
}


@functools.lru_cache(maxsize=256)
def compile_date_pattern(text: str) -> Formatter:
    """Return a formatter for a pattern like ``yyyy-MM-dd'T'HH:mm``; raise ConfigError if it is not supported."""
    parts: list[Formatter] = []
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise _unsupported(text, text[position:])
        parts.append(_letters_formatter(text, part[2]) if part[2] else _literal_formatter(part))
        position = part.end()
    return lambda time: "".join(part(time) for part in parts)


def check_date_placeholders(text: str) -> list[str]:
    """Return the date patterns in the name of an index or object, like ``a/%{yyyy}``.

    Raise ConfigError if a pattern has units smaller than an hour, which would create too many indexes or objects, or
    is not supported, or has a character that is invalid in names.
    """
    patterns = DATE_PLACEHOLDER.findall(text)
    for pattern in patterns:
        if wrong := sorted(_INVALID_IN_NAMES.union(_UNITS_BELOW_HOURS).intersection(pattern)):
            raise ConfigError(
                f"%{{{pattern}}} must not contain {' '.join(wrong)}; "
                "use units from years to hours, like %{yyyy.MM.dd}"
            )
        compile_date_pattern(pattern)
    return patterns


def _literal_formatter(part: re.Match[str]) -> Formatter:
    """Return a formatter for quoted text or a character that is not a letter."""
    literal = part[0] if part[1] is None else part[1].replace("''", "'") or "'"
    return lambda time: literal  # noqa: ARG005 - one signature


def _letters_formatter(text: str, letters: str) -> Formatter:
    """Return a formatter for one or more equal pattern letters."""
    if letters in _SPECIAL_LETTERS:
        return _SPECIAL_LETTERS[letters]
    letter, width = letters[0], len(letters)
    if letter == "S" and width <= _MAX_FRACTION:
        return lambda time: f"{time.microsecond:06}000"[:width]
    max_width, number = _NUMBERS.get(letter, (0, None))
    if number is None or width > max_width:
        raise _unsupported(text, letters)
    return lambda time: f"{number(time):0{width}}"


def _unsupported(text: str, part: str) -> ConfigError:
    return ConfigError(
        f"{part!r} in the date pattern {text!r} is not supported; use y, u, M, d, D, E, H, h, m, s, S and a, "
        "and put other text in single quotes"
    )
