"""Faults are arguments of the servers, and acts of a person in Airflow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local_stack.airflow_api import AirflowAPI
from tests.faults.ingestion import Ingestion, Shape, Start
from tests.lab import Lab


@pytest.fixture
def airflow(lab: Lab) -> AirflowAPI:
    """Airflow's REST API, signed in."""
    return lab.stack.airflow_api()


@pytest.fixture
def start(lab: Lab, bucket: str, index: str) -> Iterator[Start]:
    """Lays out the sources of an ingest, which was not run yet."""
    begun: list[Ingestion] = []

    def lay_out(shape: Shape, *, folder: str = "in") -> Ingestion:
        begun.append(Ingestion(lab, bucket, index, shape, folder=folder))
        return begun[-1]

    yield lay_out
    for ingestion in begun:
        ingestion.close()
