"""An output goes back to its input, whatever folders stand around either."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.data_prepper.work_item_ingest import Origins, input_of
from opensearch_batch.core.types.rows import Row

keys = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, unique=True)


@given(keys, st.sampled_from(["s3://out", "s3://in", "s3://out/a/b"]))
def test_each_output_of_a_job_has_its_own_input(keys: list[str], folder: str) -> None:
    """As SageMaker names them: the key of the input, below the folder of the job."""
    inputs = [f"s3://in/{key}.json" for key in keys]
    for key, uri in zip(keys, inputs, strict=True):
        assert input_of(f"{folder}/job-1/{key}.json.out", inputs) == uri


@pytest.mark.parametrize(
    ("output", "inputs", "found"),
    [
        ("s3://b/out/job/x.out", ["s3://b/in/y"], "s3://b/in/y"),
        ("s3://b/out/job/x.out", ["s3://b/in/y", "s3://b/in/z"], None),
        ("s3://b/out/job/x.out", ["s3://b/1/x", "s3://b/2/x"], None),
        ("s3://b/out/job/x.out", [], None),
    ],
    ids=["the only one", "none of this name", "two of this name", "no inputs"],
)
def test_an_output_that_may_answer_two_inputs_answers_none(output: str, inputs: list[str], found: str | None) -> None:
    """Nothing is guessed."""
    assert input_of(output, inputs) == found


def test_a_row_stands_in_its_input_where_one_is_known() -> None:
    """Else in its own object."""
    row = Row(0, "s3://b/out/job/x.out", 7, 0, b"{}")
    assert Origins({"s3://b/out/job/x.out": "s3://b/in/x"}).origin_of(row) == ("s3://b/in/x", 7)
    assert Origins().origin_of(row) == ("s3://b/out/job/x.out", 7)
