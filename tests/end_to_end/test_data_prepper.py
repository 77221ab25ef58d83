"""A Data Prepper file runs as it is: from documents in S3 to the answer of a neural query."""

from __future__ import annotations

import pytest

from tests.end_to_end.data_prepper_files import INPUT, PRINTED, DataPrepperFiles
from tests.end_to_end.own_pipelines import OwnPipelines
from tests.lab import Lab


@pytest.fixture(scope="module")
def files(lab: Lab) -> DataPrepperFiles:
    """The files of one user."""
    return DataPrepperFiles(OwnPipelines(lab))


def passages(first: int, count: int, **more: str) -> list[dict[str, str]]:
    """Make rows like those of the document."""
    return [{"_id": f"{n}", "text": f"what is amber number {n}", **more} for n in range(first, first + count)]


@pytest.mark.each_version
def test_the_sample_with_its_placeholders_filled_in_answers_a_neural_query(files: DataPrepperFiles) -> None:
    """One run takes rows with titles from S3 into an index that a neural query finds them in."""
    files.put(f"{INPUT}one.json", passages(0, 20, title="amber"))
    files.put(f"{INPUT}two.json", passages(20, 10, title="amber"))
    jobs = files.lab.jobs()
    name = files.add(PRINTED, "dp-printed", index="dp-printed")
    (run,) = files.own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    assert files.lab.jobs() == jobs + 1
    assert run.counts() == {
        "read": 30,
        "indexed": 30,
        "unchanged": 0,
        "dead_letters": 0,
        "unrouted": 0,
        "dropped": 0,
    }
    found = files.documents("dp-printed")
    assert len(found) == 30
    assert found["3"].keys() == {"title", "chapter", "chapter_embedding"}
    question = {"query_text": "what is amber number 7", "model_id": files.model_id, "k": 3}
    answer = files.lab.node(
        "POST",
        "dp-printed/_search",
        {"_source": {"excludes": ["chapter_embedding"]}, "query": {"neural": {"chapter_embedding": question}}},
    )
    assert answer["hits"]["hits"][0]["_id"] == "7"
