"""Base class of plugin options, and the type of durations. An unknown option is an error, as in Data Prepper.

Names and formats are those of Data Prepper's plugin configurations (2.17), so that its YAML files need no change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import msgspec

# The syntax of java.time.Duration.parse, except signs.
_ISO = re.compile(
    r"P(?=[\dT])(?:(?P<d>\d+)D)?(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:[.,]\d{0,9})?)S)?)?",
    re.ASCII | re.IGNORECASE,
)
_SIMPLE = re.compile(r"(0|[1-9]\d*)(s|ms)", re.ASCII)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base class of the options of a plugin, or of a group of options inside them.

    `NO_EFFECT` maps each option that is accepted but ignored to the reason. `REFUSED` maps each unsupported option of
    Data Prepper to what to write instead. `ALIASES` maps deprecated names to current ones.
    """

    NO_EFFECT: ClassVar[Mapping[str, str]] = {}
    REFUSED: ClassVar[Mapping[str, str]] = {}
    ALIASES: ClassVar[Mapping[str, str]] = {}


class Duration(float):
    """A duration in seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Parse ISO-8601 up to days (`PT6M`, `P1DT12H`), `60s` or `1500ms`; raise ValueError for anything else."""
        if (simple := _SIMPLE.fullmatch("".join(text.split()))) is not None:
            return cls(int(simple[1]) / (1 if simple[2] == "s" else 1000))
        if (iso := _ISO.fullmatch(text)) is not None:
            days, hours, minutes = (int(iso[part] or 0) for part in "dhm")
            return cls(((days * 24 + hours) * 60 + minutes) * 60 + float((iso["s"] or "0").replace(",", ".")))
        raise ValueError(
            f"{text!r} is not a duration; write seconds as 60s, milliseconds as 1500ms, or ISO-8601 as PT6M"
        )


def dec_hook(kind: type[object], value: object) -> object:
    """Convert a value to a `Duration`, as `dec_hook` of msgspec."""
    if kind is Duration:
        return Duration.parse(value if isinstance(value, str) else repr(value))
    raise NotImplementedError(kind.__name__)
