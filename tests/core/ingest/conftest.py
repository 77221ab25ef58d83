"""Fixtures of the tests that ingest staged records."""

from __future__ import annotations

from pathlib import Path

import pytest

from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.local_files import LocalFiles
from tests.core.staged_runs import MakeRuns, StagedRuns, Target
from tests.scripted import Scripted


@pytest.fixture
def target(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The index."""
    target = Target(scripted)
    monkeypatch.setattr(Cluster, "index", lambda cluster, name: target.found)  # noqa: ARG005 - any
    monkeypatch.setattr(Cluster, "refresh", lambda cluster, name: None)  # noqa: ARG005 - nothing to do
    return target


@pytest.fixture
def make(target: Target, tmp_path: Path) -> MakeRuns:
    """Make the runs of a pipeline with this index."""
    return lambda **how: StagedRuns(LocalFiles(tmp_path), target.scripted.cluster, **how)
