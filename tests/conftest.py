"""Fixtures of all tests. What runs here is real: servers on loopback, started once per session on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from include.local_stack.stack import Stack, StackOptions
from opensearch_batch.core.storage.s3 import S3Objects
from tests.examples import SHARE, examples
from tests.lab import MODEL, Lab
from tests.security.secured import Secured
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from tests.conformance.shard_flow import ShardFlow

VERSIONS = os.environ.get("OPENSEARCH_VERSIONS", "2.19.1").split(",")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what Airflow writes when it is imported out of the user's own home; a busy machine is no mistake."""
    if "not slow" in config.option.markexpr:
        SHARE["of"] = 1 / 5
    too_slow = [HealthCheck.too_slow]
    settings.register_profile("untimed", deadline=None, suppress_health_check=too_slow, max_examples=examples(100))
    settings.load_profile("untimed")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control ignores it for what runs in its background; processes under test would, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-of-tests-")


def pytest_unconfigure() -> None:
    """Remove that home."""
    shutil.rmtree(os.environ["AIRFLOW_HOME"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs the whole stack, so that the rest can run beside it; leave out what needs other stacks.

    A node with its Security plugin starts slowly, so its tests are slow.
    """
    for item in items:
        folders = item.path.relative_to(config.rootpath).parts
        if "distributed" in folders:
            item.add_marker("distributed")
        elif "lab" in getattr(item, "fixturenames", ()):
            item.add_marker("lab")
        elif "secured" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
        if "faults" in folders:
            item.add_marker("faults")
    if "distributed" in config.option.markexpr:
        return
    left_out = {item for item in items if item.get_closest_marker("distributed")}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", params=VERSIONS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The whole stack with Airflow, on free ports, of one OpenSearch version."""
    home: Path = tmp_path_factory.mktemp("stack")
    # pytest keeps its folders to their owner; the node runs as another user when the tests run as root.
    stack = Stack.up(StackOptions(home=home, free_ports=True, opensearch_version=request.param))
    running = Lab(stack, request.param)
    try:
        running.sagemaker.create_model(ModelName=MODEL)
        yield running
    finally:
        running.close()
        stack.down()


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A node with its Security plugin, and what its batch jobs need; no Airflow."""
    home: Path = tmp_path_factory.mktemp("secured")
    services = frozenset({"opensearch", "s3", "ai_services"})
    stack = Stack.up(StackOptions(home=home, services=services, free_ports=True, security=True))
    running = Secured(stack)
    try:
        running.create_sagemaker_model()
        settings = {"transient": {"plugins.ml_commons.max_batch_inference_tasks": 500}}
        running.admin("PUT", "_cluster/settings", settings)
        yield running
    finally:
        running.close()
        stack.down()


@pytest.fixture
def store(lab: Lab) -> S3Objects:
    """The object storage the stages see."""
    return lab.objects


@pytest.fixture
def bucket(lab: Lab) -> str:
    """A new empty bucket."""
    return lab.new_bucket()


@pytest.fixture
def index(lab: Lab) -> Iterator[str]:
    """The name of an index that is gone after the test."""
    name = f"i-{uuid.uuid4().hex[:12]}"
    yield name
    lab.http.delete(f"{lab.stack.addresses.opensearch}/{name}", timeout=WAIT_S)


@pytest.fixture
def start_flow(lab: Lab, index: str) -> Iterator[Callable[[str], ShardFlow]]:
    """Begin the runs of a pipeline with a service."""
    from tests.conformance.shard_flow import ShardFlow

    flows: list[ShardFlow] = []

    def lay_out(name: str) -> ShardFlow:
        flows.append(ShardFlow(lab, name, lab.new_bucket(), index))
        return flows[-1]

    yield lay_out
    for flow in flows:
        flow.close()
