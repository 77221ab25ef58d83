"""One task of a run that several tasks prepare and ingest: a process of the benchmark `scale`.

The tasks share a folder, as those of Airflow share object storage. Service and index are stubs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.client import Job, serve
from benchmarks.night_ours import FIRST_S, FolderNights
from opensearch_batch.core.ledger.commit import announce
from opensearch_batch.core.runs.spread import Spread, SpreadSettings, begin
from opensearch_batch.core.storage.json_document import load_manifest
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.services.registry import adapter_of

# A task is one of these; `number` is that of its split, or of its part of the shards, of which there are `parts`.
TASKS = ("begin", "split", "read", "compare", "stage", "reserve", "ingest", "end")
RUN_KEY = f"run-{FIRST_S:.0f}"


class Tasks(FolderNights):
    """The tasks of one run below a folder."""

    def do(self, task: str, number: int, parts: int, split_bytes: int) -> dict[str, int]:
        """Do one task; return the number of tasks that come next, and the times."""
        following = self._do(task, number, parts, split_bytes)
        return {"following": following, **self.measured(Counter())}

    def _do(self, task: str, number: int, parts: int, split_bytes: int) -> int:
        if task in {"ingest", "end"}:
            manifest = load_manifest(self.objects, self.layout.manifest(RUN_KEY), Manifest)
            if task == "end":
                self.end(manifest)
            else:
                self.ingest(manifest, manifest.shards[number::parts])
            return 0
        if task == "begin":
            preparation = self.preparation(FIRST_S)
            with self.phase("prepare"):
                return int(begin(self.objects, self.layout, preparation, SpreadSettings(split_bytes)))
        with self.phase("prepare"):
            spread = Spread(self.objects, self.layout, RUN_KEY, adapter_of)
            if task in {"split", "compare"}:
                return len(spread.split() if task == "split" else spread.compare())
            if task in {"read", "stage"}:
                (spread.read if task == "read" else spread.stage)(number)
            elif prepared := spread.finish():
                announce(self.objects, self.layout, prepared.manifest, prepared.ledger)
            return 0


def work(job: Job) -> Callable[[], dict[str, int]]:
    """Do the task `job.options["task"]`, an index in `TASKS`, below `job.rows`."""
    tasks, options = Tasks(Path(job.rows)), job.options
    return lambda: tasks.do(TASKS[options["task"]], options["number"], options["parts"], options["split_bytes"])


if __name__ == "__main__":
    serve(work)
