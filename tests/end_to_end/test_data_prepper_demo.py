"""`make data-prepper` on the lab's stack: the printed sample answers questions, and says which rows it leaves."""

from __future__ import annotations

import pytest

from include.local_stack.data_prepper import FILE
from include.local_stack.settings import REPOSITORY
from tests.end_to_end.own_pipelines import OwnPipelines
from tests.lab import Lab


@pytest.mark.slow
def test_the_data_prepper_demo_says_what_it_finds(lab: Lab) -> None:
    """Two jobs once, and again nothing."""
    left = REPOSITORY / "include" / "pipelines" / FILE
    assert not left.exists(), f"{left} is a DAG of the same name; remove it"
    # A folder of the lab's own, so that the repository's other tests never see the file.
    own = OwnPipelines(lab)
    folder = own.folder / "pipelines"
    said = lab.run("data_prepper", PIPELINES=str(folder))
    assert "placeholders filled in on 14 of its 76 lines" in said
    assert "600 read, 600 indexed, 0 unchanged, 0 dead letters, 0 unrouted, 0 dropped; 1 batch job submitted" in said
    assert said.count("same answers by knn") == 3
    counts = "50 read, 0 indexed, 0 unchanged, 0 dead letters, 50 unrouted, 0 dropped"
    assert f"{counts}; 1 batch job submitted, 0 index operations" in said
    assert "reconcile: 50 rows unrouted, all of them" in said
    assert "  76  no processor adds /title" in said
    again = lab.run("data_prepper", PIPELINES=str(folder))
    assert "Nothing is new: no job was submitted and nothing was written." in again
    assert again.count("same answers by knn") == 3
    own.pause()
