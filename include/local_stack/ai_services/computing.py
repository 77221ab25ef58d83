"""What the computations of all services share. A job that is stopped, or whose worker is killed, loses nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from include.local_stack.ai_services.datasets import Dataset
from include.local_stack.ai_services.files import File, FileStore
from include.local_stack.ai_services.jobs import State
from include.local_stack.ai_services.model import MiniLM

S3Client = Any  # boto3 makes the methods of its clients at run time
Item = TypeVar("Item")

RECORDS_PER_BATCH = 256


class JobFailedError(Exception):
    """The job ends as failed; the message is its reason."""


class JobStoppedError(Exception):
    """The job was asked to stop, and keeps nothing of what was done."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and what it has to say beside its rows."""

    state: State = State.COMPLETED
    reason: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tools:
    """What a job computes with.

    `enter` and `report` let others see where it stands; a job that was asked to stop stays in that state.
    """

    s3: S3Client
    model: MiniLM
    files: FileStore[File]
    datasets: FileStore[Dataset]
    work_dir: Path
    is_stopped: Callable[[], bool]
    enter: Callable[[State], None]
    report: Callable[[Mapping[str, Any]], None]
    now_s: Callable[[], float]

    def raise_if_stopped(self) -> None:
        """End a job that was asked to stop."""
        if self.is_stopped():
            raise JobStoppedError


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists that the model computes at once."""
    iterator = iter(items)
    while batch := list(islice(iterator, RECORDS_PER_BATCH)):
        yield batch
