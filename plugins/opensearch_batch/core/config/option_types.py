"""Types and checks of option values: sizes, secrets, plugins, AWS account ids.

Source: Data Prepper's ByteCount, PluginModel, AwsAccountId and VariableExpander (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.options import Duration, Options, dec_hook
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.errors import ConfigError

# The keys of an option, and why it is invalid, or a check that raises ConfigError if it is.
Rule = tuple[Keys, Callable[[], object] | str]
S3_SCHEME = "s3://"
# A variable, which Data Prepper replaces with an environment variable or a secret when it starts.
_VARIABLE = re.compile(r"\$\{\{\w+:.*\}\}", re.DOTALL)
_BYTES = re.compile(r"(?P<value>\d+\.?\d*)(?P<unit>[a-z]*)", re.ASCII)
_UNITS = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_SECONDS_PER = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
ACCOUNT_DIGITS = 12

BucketName = Annotated[str, Meta(min_length=3, max_length=500, examples=["my-bucket"])]


class ValueCheck(msgspec.Struct, frozen=True, eq=False):
    """Adds a check that msgspec cannot perform to a type.

    `check` raises ConfigError for an invalid value. `remark` returns a remark on a valid value, or None.
    """

    check: Callable[[Any], object]
    remark: Callable[[Any], str | None] | None = None


class CheckedOptions(Options, frozen=True, kw_only=True):
    """Options with rules that their types cannot express, such as mutually exclusive options."""

    def rules(self) -> Iterator[Rule]:
        """Yield the checks that may fail, each with the keys of the option that its error refers to."""
        return iter(())

    def remarks(self) -> Iterator[tuple[Keys, str]]:
        """Yield remarks on valid options, each with the keys of the option."""
        return iter(())


class Plugin(msgspec.Struct, frozen=True, eq=False):
    """Marks an option whose value names a plugin: ``codec: {ndjson: {}}``.

    `known` maps the name of each supported plugin to the type of its options. `refused` maps the name of each
    unsupported Data Prepper plugin to the reason.
    """

    kind: str
    known: Mapping[str, type[Options]]
    refused: Mapping[str, str] = {}


class ByteCount(int):
    """A size in bytes."""

    __slots__ = ()

    @classmethod
    def of(cls, text: str) -> ByteCount:
        """Parse a size, like ``50mb``; raise ValueError if the string is not a size, or has no unit."""
        match = _BYTES.fullmatch(text)
        if match is None or match["unit"] not in _UNITS:
            raise ValueError(f"{text!r} is not a size; write a number with b, kb, mb or gb, like 50mb")
        count = Decimal(match["value"]) * _UNITS[match["unit"]]
        if match["unit"] == "b" and count % 1:
            raise ValueError(f"{text!r} is not a whole number of bytes")
        return cls(count)


class Secret:
    """A string that messages and logs do not show."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    @property
    def is_variable(self) -> bool:
        """Whether the value is a variable, which Data Prepper would replace with a secret."""
        return is_variable(self.value)


def is_variable(value: object) -> bool:
    """Return whether a value, or a value nested in it, is a variable that Data Prepper would replace."""
    if isinstance(value, list):
        return any(is_variable(each) for each in value)
    if isinstance(value, dict):
        return any(is_variable(each) for each in value.values())
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


def decode(kind: type[object], value: object) -> object:
    """Convert a string to an option type, as `dec_hook` of msgspec."""
    if not isinstance(value, str):
        raise ValueError("Expected `str`")  # noqa: TRY004 - msgspec adds the path to a ValueError
    if kind is Secret:
        return Secret(value)
    if kind is ByteCount:
        return ByteCount.of(value)
    return dec_hook(kind, value)


def bucket_name(bucket: str) -> str:
    """Return the name of a bucket, without ``s3://`` if it is written as a URI."""
    return bucket.removeprefix(S3_SCHEME)


def refuse(cause: str) -> None:
    """Raise ConfigError; for checks that are expressions."""
    raise ConfigError(cause)


def cause_of(check: Callable[[], object] | str) -> str | None:
    """Return why an option is invalid, or None if its check succeeds."""
    if isinstance(check, str):
        return check
    try:
        check()
    except ConfigError as error:
        return str(error)
    return None


def between(minimum: float, maximum: float) -> ValueCheck:
    """Return a check that a duration is within a range, in seconds."""

    def check(span: Duration) -> None:
        if not minimum <= span <= maximum:
            allowed = f"{format_duration(minimum)} to {format_duration(maximum)}"
            refuse(f"{format_duration(span)} is out of range; write {allowed}")

    return ValueCheck(check)


def format_duration(seconds: float) -> str:
    """Format a duration in the largest unit that divides it evenly, like ``36 hours``."""
    if not seconds % 1:
        name, unit = next(
            (name, unit) for name, unit in _SECONDS_PER.items() if not seconds % unit and (seconds or unit == 1)
        )
        number = f"{int(seconds) // unit:,}"
    else:
        name, number = "second", f"{seconds:,.3f}".rstrip("0")
    return f"{number} {name}" if number == "1" else f"{number} {name}s"


def _check_account(account: str) -> None:
    if account.isdigit() and len(account) != ACCOUNT_DIGITS:
        refuse(f"an AWS account id has {ACCOUNT_DIGITS} digits, including leading zeros")


def _placeholder_remark(account: str) -> str | None:
    """Return a remark if the value is a placeholder instead of an account id, else None."""
    if account.isdigit():
        return None
    return f"{account!r} is not an AWS account id ({ACCOUNT_DIGITS} digits); S3 rejects every request with it"


AccountId = Annotated[str, Meta(examples=["123456789012"]), ValueCheck(_check_account, _placeholder_remark)]
