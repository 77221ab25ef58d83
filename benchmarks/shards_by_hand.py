"""Cuts a file into shards as one writes it by hand, with json: one process, measured by `benchmarks.prepare`.

It does less than the task: no digest names a shard, and a line that is no record ends it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from benchmarks.client import Job, serve
from benchmarks.shards import SHARD_RECORDS


def work(job: Job) -> Callable[[], int]:
    """Prepare for `job.index`, which names the service."""
    path = Path(job.rows)
    joined = job.index == "sagemaker"

    def cut() -> int:
        count = 0
        with path.open("rb") as rows, Path(os.devnull).open("w") as source:
            while lines := list(islice(rows, SHARD_RECORDS)):
                with Path(os.devnull).open("w") as shard:
                    for at, line in enumerate(lines):
                        record = json.loads(line)
                        if not record["text"].strip():
                            raise ValueError(line)
                        if joined:
                            shard.write(json.dumps(record) + "\n")
                            continue
                        name = f"r{at:010d}"
                        body = {"model": "m", "input": [record["text"]]}
                        request = {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body}
                        shard.write(json.dumps(request) + "\n")
                        source.write(json.dumps({"record_id": name, "record": record}) + "\n")
                count += len(lines)
        return count

    return cut


if __name__ == "__main__":
    serve(work)
