"""A job whose worker was killed after it kept its files, and before it said so: the next worker replaces them."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest

from include.local_stack.ai_services.datasets import Dataset, Part, as_text, read_parts, schema_of, write_parts
from include.local_stack.ai_services.faults import Fault, FaultKind
from include.local_stack.ai_services.files import File
from include.local_stack.ai_services.jobs import Job, JobStore, State
from include.local_stack.ai_services.model import MiniLM
from include.local_stack.ai_services.service import datasets_of, files_of
from include.local_stack.ai_services.worker import Worker


@pytest.fixture
def now_s() -> Iterator[int]:
    """A clock that goes on by one second each time it is read."""
    return count(1000)


def computed_twice(state_dir: Path, model: MiniLM, job: Job, now_s: Iterator[int]) -> tuple[Job, Job]:
    """The job as it ended, and as it ended once more after its end was lost."""
    worker = Worker(state_dir=state_dir, s3=None, model=model, now_s=lambda: float(next(now_s)))
    jobs = JobStore(state_dir)
    jobs.accept(job)
    assert worker.run_once()
    first = jobs.get(job.service, job.name)
    (state_dir / "jobs_pending" / f"0.0.{job.service}.{job.name}").touch()
    path = state_dir / "jobs" / job.service / f"{job.name}.json"
    path.write_bytes(msgspec.json.encode(job.entered(State.RUNNING, 1.0)))
    assert worker.run_once()
    return first, jobs.get(job.service, job.name)


def test_a_batch_has_one_pair_of_files(tmp_path: Path, ai_model: MiniLM, now_s: Iterator[int]) -> None:
    """Under the same ids; its times are those of the second computation."""
    body = {"model": "m", "input": "x"}
    lines = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/embeddings", "body": body} for n in range(4)]
    content = tmp_path / "in.jsonl"
    content.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    about = File(id="file-in", bytes=1, created_at=1, filename="in.jsonl", purpose="batch")
    files_of(tmp_path).add(about, [content])
    request = {"input_file_id": "file-in", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    partial = Fault(service="openai", fault=FaultKind.PARTIAL)
    job = Job(service="openai", name="batch_1", request=request, accepted_at_s=1.0, faults=(partial,))
    first, second = computed_twice(tmp_path, ai_model, job, now_s)
    assert first.result == second.result
    assert second.result["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    outputs = {file.id for file in files_of(tmp_path).all() if file.purpose == "batch_output"}
    assert outputs == {second.result["output_file_id"], second.result["error_file_id"]}
    assert first.ended_at_s is not None
    assert second.ended_at_s is not None
    assert first.ended_at_s < second.ended_at_s


def test_an_embed_job_has_one_dataset(tmp_path: Path, ai_model: MiniLM, now_s: Iterator[int]) -> None:
    """Under the same id, and with all its rows once."""
    schema = schema_of([], embedded=False)
    ((path, part),) = write_parts(tmp_path, schema, [{"text": "one"}, {"text": "two"}])
    assert part == Part(2, path.stat().st_size)
    source = Dataset(
        id="in",
        name="in",
        dataset_type="embed-input",
        created_at_s=1.0,
        valid_from_s=1.0,
        schema=as_text(schema),
        parts=(part,),
    )
    datasets_of(tmp_path).add(source, [path])
    job = Job(service="cohere", name="j", request={"dataset_id": "in", "model": "m"}, accepted_at_s=1.0)
    first, second = computed_twice(tmp_path, ai_model, job, now_s)
    assert first.result == second.result
    (output,) = [found for found in datasets_of(tmp_path).all() if found.dataset_type == "embed-result"]
    assert output.id == second.result["output_dataset_id"]
    assert [row["text"] for row in read_parts([datasets_of(tmp_path).path(output.id)])] == ["one", "two"]
