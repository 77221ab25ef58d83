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
from typing import Any

import boto3
import msgspec
from botocore.config import Config

from include.local_stack.ai_services import bedrock_job, cohere_job, openai_job, sagemaker_job
from include.local_stack.ai_services.aws import REGION
from include.local_stack.ai_services.computing import JobFailedError, JobStoppedError, Outcome, S3Client, Tools
from include.local_stack.ai_services.jobs import TEXTS, Job, JobStore, State
from include.local_stack.ai_services.model import MiniLM, vector_cache
from include.local_stack.ai_services.service import datasets_of, files_of

POLL_EVERY_S = 0.2
COMPUTE: Mapping[str, Callable[[Job, Tools], Outcome]] = {
    "sagemaker": sagemaker_job.run,
    "openai": openai_job.run,
    "bedrock": bedrock_job.run,
    "cohere": cohere_job.run,
}
log = logging.getLogger("ai_services.worker")


class Worker:
    """Takes jobs in the order they were accepted, one at a time: the model uses all cores for each."""

    def __init__(self, *, state_dir: Path, s3: S3Client, model: MiniLM, now_s: Callable[[], float] = time.time) -> None:
        self._jobs = JobStore(state_dir)
        self._files = files_of(state_dir)
        self._datasets = datasets_of(state_dir)
        self._s3 = s3
        self._model = model
        self._work_dir = state_dir / "work"
        self._now_s = now_s

    def run_once(self) -> bool:
        """Bring the first job that is due to its end; false if none is."""
        job = self._jobs.next_due(self._now_s())
        if job is None:
            return False
        before = self._model.encoded
        outcome = self._outcome(job)
        texts = self._model.encoded - before

        def ended(current: Job) -> Job:
            result = {**current.result, **outcome.result, TEXTS: texts}
            return current.entered(outcome.state, self._now_s(), failure_reason=outcome.reason, result=result)

        self._jobs.update(job.service, job.name, ended)
        return True

    def _outcome(self, job: Job) -> Outcome:
        self._work_dir.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=self._work_dir) as folder:
                return COMPUTE[job.service](job, self._tools(job, Path(folder)))
        except JobStoppedError:
            return Outcome(State.STOPPED)
        except JobFailedError as error:
            return Outcome(State.FAILED, str(error))
        except Exception as error:
            log.exception("%s job %s", job.service, job.name)
            return Outcome(State.FAILED, f"InternalServerError: {type(error).__name__}: {error}")

    def _tools(self, job: Job, folder: Path) -> Tools:
        def enter(state: State) -> None:
            self._unless_stopping(job, lambda current: current.entered(state, self._now_s()))

        def report(result: Mapping[str, Any]) -> None:
            self._unless_stopping(
                job, lambda current: msgspec.structs.replace(current, result={**current.result, **result})
            )

        return Tools(
            s3=self._s3,
            model=self._model,
            files=self._files,
            datasets=self._datasets,
            work_dir=folder,
            is_stopped=lambda: self._jobs.get(job.service, job.name).state is State.STOPPING,
            enter=enter,
            report=report,
            now_s=self._now_s,
        )

    def _unless_stopping(self, job: Job, change: Callable[[Job], Job]) -> None:
        self._jobs.update(
            job.service, job.name, lambda current: current if current.state is State.STOPPING else change(current)
        )


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
    model = MiniLM(arguments.model, cache=vector_cache(arguments.model))
    with only_worker(arguments.state):
        shutil.rmtree(arguments.state / "work", ignore_errors=True)  # what a killed worker left
        worker = Worker(state_dir=arguments.state, s3=s3, model=model)
        while True:
            if not worker.run_once():
                time.sleep(POLL_EVERY_S)


if __name__ == "__main__":
    main()
