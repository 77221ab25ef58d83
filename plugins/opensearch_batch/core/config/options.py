"""Base class of plugin options, and durations. An unknown option is an error, as in Data Prepper.

Names and formats are those of Data Prepper's plugin configurations (2.17), so its YAML needs no change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import msgspec

# The forms of java.time.Duration.parse, without a sign.
_ISO = re.compile(
    r"P(?=[\dT])(?:(?P<d>\d+)D)?(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:[.,]\d{0,9})?)S)?)?",
    re.ASCII | re.IGNORECASE,
)
_SIMPLE = re.compile(r"(0|[1-9]\d*)(s|ms)", re.ASCII)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of one plugin, or of a part of it.

    `NO_EFFECT` explains accepted options that change nothing here, `REFUSED` unsupported options of Data Prepper and
    what to write instead; `ALIASES` maps deprecated names to current ones.
    """

    NO_EFFECT: ClassVar[Mapping[str, str]] = {}
    REFUSED: ClassVar[Mapping[str, str]] = {}
    ALIASES: ClassVar[Mapping[str, str]] = {}


class Duration(float):
    """A duration in seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Parse a duration: ISO-8601 up to days (`PT6M`, `P1DT12H`), or `60s`, or `1500ms`.

        Raises:
            ValueError: the text has another form.
        """
        if (simple := _SIMPLE.fullmatch("".join(text.split()))) is not None:
            return cls(int(simple[1]) / (1 if simple[2] == "s" else 1000))
        if (iso := _ISO.fullmatch(text)) is not None:
            days, hours, minutes = (int(iso[part] or 0) for part in "dhm")
            return cls(((days * 24 + hours) * 60 + minutes) * 60 + float((iso["s"] or "0").replace(",", ".")))
        raise ValueError(
            f"{text!r} is not a duration; write seconds as 60s, milliseconds as 1500ms, or ISO-8601 as PT6M"
        )


def dec_hook(wanted: type[object], given: object) -> object:
    """Decode a `Duration`, for msgspec."""
    if wanted is Duration:
        return Duration.parse(given if isinstance(given, str) else repr(given))
    raise NotImplementedError(wanted.__name__)
