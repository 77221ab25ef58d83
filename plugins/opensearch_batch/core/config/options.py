"""A pipeline's options are read into types: an option nobody knows is refused, and so is one that would be ignored.

Names and forms are those of Data Prepper's plugin configurations (2.17), so its YAML is read unchanged; the original
refuses unknown options too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

# The forms of java.time.Duration.parse, without a sign.
_ISO = re.compile(
    r"P(?=[\dT])(?:(?P<d>\d+)D)?(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:[.,]\d{0,9})?)S)?)?",
    re.ASCII | re.IGNORECASE,
)
_SIMPLE = re.compile(r"(0|[1-9]\d*)(s|ms)", re.ASCII)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of one plugin, or of a part of it.

    `NO_EFFECT` says of options that are read why they change nothing here, `REFUSED` of options the original has why
    they are not supported and what to write instead, `ALIASES` which option an old name means.
    """

    NO_EFFECT: ClassVar[Mapping[str, str]] = {}
    REFUSED: ClassVar[Mapping[str, str]] = {}
    ALIASES: ClassVar[Mapping[str, str]] = {}


class Duration(float):
    """A time span in seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read a time span: ISO-8601 up to days (`PT6M`, `P1DT12H`), or `60s`, or `1500ms`.

        Raises:
            ValueError: it is none of these.
        """
        if (simple := _SIMPLE.fullmatch("".join(text.split()))) is not None:
            return cls(int(simple[1]) / (1 if simple[2] == "s" else 1000))
        if (iso := _ISO.fullmatch(text)) is not None:
            days, hours, minutes = (int(iso[part] or 0) for part in "dhm")
            return cls(((days * 24 + hours) * 60 + minutes) * 60 + float((iso["s"] or "0").replace(",", ".")))
        raise ValueError(f"{text!r} is no duration; write seconds as 60s, milliseconds as 1500ms, or ISO-8601 as PT6M")


def dec_hook(wanted: type[Any], given: Any) -> Any:  # noqa: ANN401 - the signature of msgspec.convert's hook
    """Read what msgspec does not know: a `Duration`."""
    if wanted is Duration:
        return Duration.parse(given if isinstance(given, str) else repr(given))
    raise NotImplementedError(wanted.__name__)
