"""Faults are arguments of the servers, and acts of a person in Airflow."""

from __future__ import annotations

import pytest

from include.local_stack.airflow_api import AirflowAPI
from tests.lab import Lab


@pytest.fixture
def airflow(lab: Lab) -> AirflowAPI:
    """Airflow's REST API, signed in."""
    return lab.stack.airflow_api()
