"""The worker. A job that was running when a worker died is computed again from its start.

Started as `python -m include.local_stack.ai_services.worker`. A second worker on one state folder stands by.
"""

import argparse
import fcntl
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3
import msgspec
from botocore.config import Config

from include.local_stack.ai_services import sagemaker_job
from include.local_stack.ai_services.aws import REGION
from include.local_stack.ai_services.jobs import Job, JobStore, State
from include.local_stack.ai_services.model import MiniLM
from include.local_stack.ai_services.sagemaker_job import JobFailedError, S3Client, Tools

POLL_EVERY_S = 0.2
COMPUTE: Mapping[str, Callable[[Job, Tools], None]] = {"sagemaker": sagemaker_job.run}
log = logging.getLogger("ai_services.worker")


class JobStoppedError(Exception):
    """The job was asked to stop while it was computed."""


class Worker:
    """Takes jobs in the order they were accepted, one at a time: the model uses all cores for each."""

    def __init__(self, *, jobs: JobStore, s3: S3Client, model: MiniLM, work_dir: Path) -> None:
        self._jobs = jobs
        self._s3 = s3
        self._model = model
        self._work_dir = work_dir

    def run_once(self, now_s: float) -> bool:
        """Bring the first job that is due to its end; false if none is."""
        due = (job for job in self._jobs.unfinished() if job.state is State.STOPPING or job.start_not_before_s <= now_s)
        job = next(due, None)
        if job is None:
            return False
        state, reason = self._outcome(job)
        self._change(job, state=state, ended_at_s=time.time(), failure_reason=reason)
        return True

    def _outcome(self, job: Job) -> tuple[State, str | None]:
        self._work_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._jobs.update(job.service, job.name, _started)
            if job.injected_failure:
                raise JobFailedError(job.injected_failure)  # noqa: TRY301 -- ends like any other failure
            with tempfile.TemporaryDirectory(dir=self._work_dir) as folder:
                COMPUTE[job.service](job, self._tools(job, Path(folder)))
        except JobStoppedError:
            return State.STOPPED, None
        except JobFailedError as error:
            return State.FAILED, str(error)
        except Exception as error:
            log.exception("%s job %s", job.service, job.name)
            return State.FAILED, f"InternalServerError: {type(error).__name__}: {error}"
        return State.COMPLETED, None

    def _tools(self, job: Job, folder: Path) -> Tools:
        def raise_if_stopped() -> None:
            if self._jobs.get(job.service, job.name).state is State.STOPPING:
                raise JobStoppedError

        return Tools(s3=self._s3, model=self._model, work_dir=folder, raise_if_stopped=raise_if_stopped)

    def _change(self, job: Job, **changes: State | float | str | None) -> None:
        self._jobs.update(job.service, job.name, lambda current: msgspec.structs.replace(current, **changes))


def _started(job: Job) -> Job:
    if job.state is State.STOPPING:
        raise JobStoppedError
    return msgspec.structs.replace(job, state=State.RUNNING, started_at_s=time.time())


@contextmanager
def only_worker(state_dir: Path) -> Iterator[None]:
    """Wait until no other worker serves this state folder."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "worker.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Compute jobs until killed."""
    parser = argparse.ArgumentParser(prog="ai_services.worker", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of the job files, shared with the app")
    parser.add_argument("--s3-endpoint", required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder that model.fetch() completed")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    config = Config(s3={"addressing_style": "path"})
    s3 = boto3.client("s3", endpoint_url=arguments.s3_endpoint, region_name=REGION, config=config)
    work_dir = arguments.state / "work"
    with only_worker(arguments.state):
        shutil.rmtree(work_dir, ignore_errors=True)  # what a killed worker left
        worker = Worker(jobs=JobStore(arguments.state), s3=s3, model=MiniLM(arguments.model), work_dir=work_dir)
        while True:
            if not worker.run_once(time.time()):
                time.sleep(POLL_EVERY_S)


if __name__ == "__main__":
    main()
