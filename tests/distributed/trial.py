"""Runs of pipelines over records of their own, and the count of everything that they have cost."""

from __future__ import annotations

import time
from contextlib import suppress

from requests import RequestException

from include.local_stack.airflow_api import ENDED
from tests.distributed.celery_stack import CeleryStack, tries
from tests.distributed.outcomes import OUTCOMES, Outcome
from tests.end_to_end.own_pipelines import Run
from tests.faults.ingestion import BULK
from tests.waiting import WAIT_S, eventually

RECORDS, SHARD = 300, 100


class Trial:
    """One or more runs, with the counters of services and indexes before them.

    Args:
        stack: the stack that runs them.
        fault: the name of the fault in the table.
        names: pipelines; one that has not run yet by default.
    """

    def __init__(self, stack: CeleryStack, fault: str, *names: str) -> None:
        self.stack, self.fault = stack, fault
        self.names = names or (stack.pipeline(),)
        self.indexes = {stack.index_of[name] for name in self.names}
        for number, name in enumerate(self.names):
            stack.pipelines.put(f"{name}/a.jsonl", number * RECORDS, RECORDS)
        self._jobs, self._texts = stack.lab.jobs(), stack.lab.texts()
        self._began = time.monotonic()
        self.runs: list[Run] = []

    @property
    def records(self) -> int:
        """The number of records of all runs."""
        return RECORDS * len(self.names)

    def start(self) -> None:
        """Start the runs."""
        self.runs = [self.stack.pipelines.run(name) for name in self.names]

    def until(self, stage: str, state: str) -> None:
        """Wait until the stage of each run is in a state."""
        for run in self.runs:
            eventually(
                lambda run=run: any(  # type: ignore[misc] # a default
                    task["task_id"] == stage and task["state"] == state
                    for task in self.stack.airflow.tasks(run.dag_id, run.run_id)
                ),
                f"{run.dag_id} {stage} {state}",
            )

    def until_bulks(self, count: int) -> None:
        """Wait until the index has been sent more bulk requests."""
        before = self.stack.node.count(BULK)
        eventually(lambda: self.stack.node.count(BULK) >= before + count, "bulk requests")

    def end(self, *, repaired: int = 0) -> Outcome:
        """Wait for the end of the runs, and check every count; `repaired` texts were computed once more by design."""
        for run in self.runs:
            state = eventually(lambda run=run: self._end_state(run), f"the end of {run.dag_id}", wait_s=2 * WAIT_S)  # type: ignore[misc] # a default
            assert state == "success", (run.dag_id, self._failures(run))
        seconds = time.monotonic() - self._began
        outcome = self._outcome(repaired, seconds)
        OUTCOMES.append(outcome)
        assert (outcome.lost, outcome.twice, outcome.paid_twice) == (0, 0, 0), outcome
        shards = len(self.names) * -(-RECORDS // SHARD)
        assert outcome.jobs == shards + bool(repaired), outcome
        for run in self.runs:
            counts = run.counts()
            assert (counts["read"], counts["dead_letters"]) == (RECORDS, 0), counts
            assert counts["indexed"] + counts.get("unchanged", 0) == RECORDS, counts
            assert counts["paid"] == RECORDS, counts
        return outcome

    def _outcome(self, repaired: int, seconds: float) -> Outcome:
        lab = self.stack.lab
        expected = {f"d{number}" for number in range(self.records)}
        found: list[str] = []
        for index in self.indexes:
            self.stack.pipelines.count(index)
            documents = lab.documents(index)
            found += [name for name, document in documents.items() if len(document["embedding"]) == 384]
        operations = sum(lab.writes(index) for index in self.indexes)
        return Outcome(
            fault=self.fault,
            records=self.records,
            lost=len(expected - set(found)),
            twice=len(found) - len(set(found) & expected),
            paid_twice=lab.texts() - self._texts - self.records - repaired,
            jobs=lab.jobs() - self._jobs,
            written_again=operations - self.records,
            retries=sum(tries(self.stack.airflow.tasks(run.dag_id, run.run_id)) for run in self.runs),
            seconds=seconds,
        )

    def _end_state(self, run: Run) -> str:
        """Return the state of a run that has ended; the api-server may be without its database meanwhile."""
        with suppress(RequestException):
            state = str(self.stack.airflow.run(run.dag_id, run.run_id)["state"])
            return state if state in ENDED else ""
        return ""

    def _failures(self, run: Run) -> list[str]:
        tasks = self.stack.airflow.tasks(run.dag_id, run.run_id)
        return [
            f"{task['task_id']}: {self.stack.airflow.log(task)[-2000:]}" for task in tasks if task["state"] == "failed"
        ]
