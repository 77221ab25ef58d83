"""End-to-end tests start runs as a user does: over Airflow's REST API, with documents in S3."""

from __future__ import annotations

import pytest

from include.local_stack.airflow_api import AirflowAPI
from tests.lab import Lab


@pytest.fixture
def airflow(lab: Lab) -> AirflowAPI:
    """Airflow's REST API, signed in."""
    return lab.stack.airflow_api()
