"""Options are read by type: durations in the forms of Data Prepper, nothing unknown, nothing ignored."""

from __future__ import annotations

import msgspec
import pytest

from opensearch_batch.core.config.options import Duration, Options, dec_hook
from opensearch_batch.core.transform.processors import PROCESSORS


class Timed(Options, frozen=True, kw_only=True):
    """Options with a time span."""

    after: Duration = Duration(60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("1500ms", 1.5),
        (" 60 s ", 60),
        ("0s", 0),
        ("PT6M", 360),
        ("pt6m", 360),
        ("PT20.345S", 20.345),
        ("PT1H30M", 5400),
        ("P1D", 86400),
        ("P1DT12H", 129600),
        ("PT0S", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """ISO-8601 up to days, seconds and milliseconds."""
    read = msgspec.convert({"after": text}, Timed, strict=False, dec_hook=dec_hook).after
    assert read == pytest.approx(seconds)
    assert type(read) is Duration


@pytest.mark.parametrize(
    "given", ["60", 60, "", "P", "PT", "P1DT", "PT1.5M", "60S", "060s", "1.5s", "6m", "-60s", "PT-6M", "P1M", "P1W"]
)
def test_what_is_no_duration_says_how_to_write_one(given: object) -> None:
    """Data Prepper knows no other forms either; a sign would mean nothing."""
    with pytest.raises(msgspec.ValidationError, match=r"is not a duration; write seconds as 60s.* - at `\$.after`"):
        msgspec.convert({"after": given}, Timed, strict=False, dec_hook=dec_hook)


def test_other_types_are_none_of_ours() -> None:
    """The hook says which type it does not read."""
    with pytest.raises(NotImplementedError, match="set"):
        dec_hook(set, "x")


def test_an_unknown_option_is_refused() -> None:
    """As by Data Prepper."""
    with pytest.raises(msgspec.ValidationError, match="unknown field `before`"):
        msgspec.convert({"before": "1s"}, Timed)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_is_said_of_options_is_of_options(name: str) -> None:
    """An old name leads to an option; what is refused or without effect has a reason."""
    kind = PROCESSORS[name]
    assert set(kind.ALIASES.values()) <= set(kind.__struct_fields__)
    assert not set(kind.REFUSED) & set(kind.__struct_fields__)
    assert all({**kind.REFUSED, **kind.NO_EFFECT}.values())
