"""What an option's text may be: a size, a secret that no message shows, the place of a plugin, an account.

Source: Data Prepper's ByteCount, PluginModel, AwsAccountId and VariableExpander (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.options import Duration, Options, dec_hook
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.errors import ConfigError

Rule = tuple[Keys, Callable[[], object]]
S3_SCHEME = "s3://"
# A value that the original fetches from elsewhere when it starts.
_VARIABLE = re.compile(r"\$\{\{\w+:.*\}\}", re.DOTALL)
_BYTES = re.compile(r"(?P<value>\d+\.?\d*)(?P<unit>[a-z]*)", re.ASCII)
_UNITS = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_SPANS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
ACCOUNT_DIGITS = 12

AccountId = Annotated[str, Meta(examples=["123456789012"])]
BucketName = Annotated[str, Meta(min_length=3, max_length=500, examples=["my-bucket"])]
Condition = Annotated[str, Meta(min_length=1, examples=["/title != null"])]


class CheckedOptions(Options, frozen=True, kw_only=True):
    """Options of which more has to hold than their types say."""

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        return iter(())

    def notes(self) -> Iterator[tuple[Keys, str]]:
        """Yield what the user should know of an option that is taken."""
        return iter(())


class Plugin(msgspec.Struct, frozen=True, eq=False):
    """Marks an option whose value names a plugin: ``codec: {ndjson: {}}``.

    `known` has the options of each, `refused` says of others that the original has why they are not supported.
    """

    kind: str
    known: Mapping[str, type[Options]]
    refused: Mapping[str, str] = {}


class ByteCount(int):
    """A size in bytes."""

    __slots__ = ()

    @classmethod
    def of(cls, text: str) -> ByteCount:
        """Read a size, like ``50mb``.

        Raises:
            ValueError: it is none, or has no unit.
        """
        found = _BYTES.fullmatch(text)
        if found is None or found["unit"] not in _UNITS:
            raise ValueError(f"{text!r} is no size; write it with b, kb, mb or gb, like 50mb")
        count = Decimal(found["value"]) * _UNITS[found["unit"]]
        if found["unit"] == "b" and count % 1:
            raise ValueError(f"{text!r} is a part of a byte")
        return cls(count)


class Secret:
    """A text that is never shown."""

    __slots__ = ("value",)

    # Kept beside the value, so that whoever meets it in a log knows what it is.
    _SHOWN: ClassVar[str] = "Secret(...)"

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return self._SHOWN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    @property
    def is_variable(self) -> bool:
        """Whether the original would fetch it from a secret store."""
        return is_variable(self.value)


def is_variable(value: Any) -> bool:  # noqa: ANN401 - nested texts
    """Say whether a value, or one in it, is fetched from elsewhere by the original."""
    if isinstance(value, list):
        return any(is_variable(each) for each in value)
    if isinstance(value, dict):
        return any(is_variable(each) for each in value.values())
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


def decode(wanted: type[Any], given: Any) -> Any:  # noqa: ANN401 - the signature of msgspec.convert's hook
    """Read the types that msgspec does not know."""
    if not isinstance(given, str):
        raise ValueError("Expected `str`")  # noqa: TRY004 - msgspec tells the place of a ValueError
    if wanted is Secret:
        return Secret(given)
    if wanted is ByteCount:
        return ByteCount.of(given)
    return dec_hook(wanted, given)


def bare(bucket: str) -> str:
    """Return a bucket's name, which may be written as a URI."""
    return bucket.removeprefix(S3_SCHEME)


def refuse(cause: str) -> None:
    """Raise ConfigError."""
    raise ConfigError(cause)


def when(*, wrong: bool, cause: str, keys: Keys = ()) -> Iterator[Rule]:
    """Yield a rule that is broken already, or none."""
    if wrong:
        yield keys, lambda: refuse(cause)


def between(keys: Keys, span: Duration, least: float, most: float) -> Iterator[Rule]:
    """Yield the rule that a time span is neither too short nor too long."""
    yield from when(
        wrong=not least <= span <= most,
        keys=keys,
        cause=f"{spoken(span)} is not from {spoken(least)} to {spoken(most)}; write that",
    )


def spoken(seconds: float) -> str:
    """Return a time span in the largest unit that it is a whole number of: ``36 hours``."""
    if not seconds % 1:
        name, unit = next(
            (name, unit) for name, unit in _SPANS.items() if not seconds % unit and (seconds or unit == 1)
        )
        number = f"{int(seconds) // unit:,}"
    else:
        name, number = "second", f"{seconds:,.3f}".rstrip("0")
    return f"{number} {name}" if number == "1" else f"{number} {name}s"


def account_rules(keys: Keys, account: str | None) -> Iterator[Rule]:
    """Yield the rule that a number has as many digits as an account's."""
    yield from when(
        wrong=account is not None and account.isdigit() and len(account) != ACCOUNT_DIGITS,
        keys=keys,
        cause=f"an AWS account has {ACCOUNT_DIGITS} digits, leading zeros included",
    )


def account_notes(keys: Keys, account: str | None) -> Iterator[tuple[Keys, str]]:
    """Yield the note that a word stands where the account is to be written."""
    if account is not None and not account.isdigit():
        yield keys, f"{account!r} is no AWS account ({ACCOUNT_DIGITS} digits); S3 refuses every request that names it"
