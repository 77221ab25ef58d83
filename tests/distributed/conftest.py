"""The Celery stack, started once, and the table of what its faults have cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.celery_stack import CeleryStack
from tests.distributed.outcomes import OUTCOMES, table


@pytest.fixture(scope="module")
def celery_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryStack]:
    """Two schedulers, triggerers and workers, PostgreSQL and Redis, with a proxy before the node and one before S3."""
    home: Path = tmp_path_factory.mktemp("celery")
    stack = CeleryStack(home)
    yield stack
    stack.close()


@pytest.fixture
def stack(celery_stack: CeleryStack) -> Iterator[CeleryStack]:
    """The stack, when all its processes are healthy; faults that did not occur are gone afterwards."""
    celery_stack.wait_until_healthy()
    yield celery_stack
    celery_stack.settle()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if OUTCOMES:
        terminalreporter.section("faults on several processes")
        terminalreporter.write_line(table(OUTCOMES))
