"""`opensearch-batch runs`, `status`, `dead-letters` and `jobs`: what a person and a script see of whole runs."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opensearch_batch.cli import main, status
from opensearch_batch.core.runs.request_runs import account_for_request, announce_request
from opensearch_batch.core.storage.layout import DEFAULT_WORK_PREFIX, Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestCounts, IngestReport
from opensearch_batch.core.types.identity import run_key
from tests.command_line import ROOT
from tests.core.aws import aws
from tests.core.whole_runs import Pipeline, Run

FOLDER = "s3://lake/work/p"
Cli = Callable[..., tuple[int, str]]


class Watched:
    """A pipeline in memory whose objects are copied to a store that the command line reads."""

    def __init__(self, store: S3Objects) -> None:
        self.store = store
        self.pipeline = Pipeline(max_dead_letters="100%")
        texts = ({"id": f"d{number}", "text": "t" * (number + 1)} for number in range(6))
        self.pipeline.put("a.jsonl", *texts)
        self.pipeline.put_content("b.jsonl", b"{oops\n")
        self.pipeline.service.fails["t"] = 2

    def copy(self) -> None:
        """Copy all objects."""
        for item in list(self.pipeline.objects.list("s3://lake/")):
            stored = self.pipeline.objects.read(item.uri)
            assert stored is not None
            self.store.write(item.uri, stored.content)

    def run(self) -> Run:
        """Run to the end, and copy what was written."""
        run = self.stages(0)
        run.finish()
        self.copy()
        return run

    def stages(self, count: int) -> Run:
        """Begin a run, do so many stages, and copy what they wrote."""
        run = self.pipeline.new_run()
        run.key = run_key("p", run.run_id)
        for _ in range(count):
            stage = run.stages[0]
            stage()
            run.stages.remove(stage)
        self.copy()
        return run


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 server."""
    with aws("s3") as client:
        for bucket in ("lake", "opensearch-batch"):
            client.create_bucket(Bucket=bucket)
        yield client


@pytest.fixture
def watched(s3: Any) -> Iterator[Watched]:
    """A pipeline with an empty store."""
    store = S3Objects(s3)
    yield Watched(store)
    for item in list(store.list("s3://lake/")):
        store.delete(item.uri)


@pytest.fixture
def cli(s3: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command, and return its exit code and what it printed."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def run(name: str, *arguments: str) -> tuple[int, str]:
        code = main([name, *arguments, "--s3-endpoint", s3.meta.endpoint_url])
        seen = capsys.readouterr()
        return code, seen.out or seen.err

    return run


def shown(done: tuple[int, str]) -> dict[str, Any]:
    """Return the object that a command printed."""
    found: dict[str, Any] = json.loads(done[1])
    return found


def words(text: str) -> str:
    """Return a text with single spaces."""
    return re.sub(r"\s+", " ", text)


def test_runs_are_listed(cli: Cli, watched: Watched) -> None:
    """As a table and as one object; one that has not ended has only the counts of its source."""
    assert cli("runs", FOLDER) == (0, "no run has had anything to do\n")
    done = watched.run()
    watched.pipeline.put("c.jsonl", {"id": "d9", "text": "new"})
    watched.stages(1)
    newest, oldest = shown(cli("runs", FOLDER, "--json"))["runs"]
    assert (newest["run_id"], newest["ended_at"], newest["counts"]) == ("manual run2", None, None)
    assert (oldest["run_key"], oldest["counts"]["indexed"], oldest["dead_letters"]) == (done.key, 5, 2)
    code, text = cli("runs", FOLDER)
    assert code == 0
    assert re.search(r"p manual run2 \S+ \S+ not ended 1 1 0 0 1 0", words(text))
    assert re.search(r"p manual run1 \S+ \S+ [\w .]+ 7 6 0 0 6 5 0 2", words(text))
    assert len(shown(cli("runs", FOLDER, "--limit", "1", "--json"))["runs"]) == 1


def test_the_runs_of_requests_are_listed_with_those_of_all_pipelines(
    cli: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the work prefixes of the pipelines; they are shown by the name of their DAG."""
    monkeypatch.chdir(ROOT)
    layout = Layout(DEFAULT_WORK_PREFIX, "batch_ingestion")
    manifest = announce_request(
        watched.store, layout, run_key("batch_ingestion", "r"), run_id="r", sources=["s3://d/"], index="i",
        progress="s3://opensearch-batch/progress.json", now=time.time(),
    )  # fmt: skip
    report = IngestReport("i", "DONE", IngestCounts(read=5, indexed=3, joined=2))
    account_for_request(watched.store, layout, manifest, report, now=time.time())
    (listed,) = shown(cli("runs", "--json"))["runs"]
    assert (listed["pipeline"], listed["run_id"], listed["counts"]["indexed"]) == ("batch_ingestion", "r", 3)
    code, text = cli("status", "batch_ingestion", "r")
    assert code == 0
    assert "5 read = 3 indexed + 2 joined" in words(text)


def test_a_run_is_shown_while_it_runs_and_when_it_has_ended(cli: Cli, watched: Watched) -> None:
    """The newest one, or one by its id; dead letters change the exit code of a run that has ended."""
    done = watched.run()
    for name in ("c", "d"):
        watched.pipeline.put(f"{name}.jsonl", *({"id": f"{name}{number}", "text": name} for number in range(2)))
    watched.pipeline.put_content("b.jsonl", b"")
    watched.stages(2)
    code, text = cli("status", FOLDER)
    assert code == 0
    stages = "prepare 4/4 records -> batch_predict 1/1 jobs -> poll 1/1 jobs -> ingest 0/4 records"
    assert f"{stages} -> repair - -> reconcile 0/1 runs" in words(text)
    assert re.search(r"0000 predicted \d 0 0 0 COMPLETED task of", words(text))
    code, text = cli("status", FOLDER, done.run_id, "--shards", "1")
    assert code == 1
    assert "6 new, 0 input changed, 0 other changed, 0 unchanged, 0 duplicate, 0 tombstone; 0 of 0" in words(text)
    assert "7 read = 5 indexed + 2 dead letters; 0 deleted" in words(text)
    assert "2 bulk requests" in text
    assert "all shards: 3 written" in text
    assert shown(cli("status", FOLDER, done.key, "--state", "failed", "--json"))["run"]["shards"] == []
    first = shown(cli("status", FOLDER, done.key, "--json"))
    assert (first["state"], first["run"]["summary"]["run_id"]) == ("DONE_WITH_DEAD_LETTERS", done.run_id)
    code, text = cli("status", FOLDER, "manual run3")
    assert code == 2
    assert "no such run" in text


def test_a_run_is_watched_until_it_has_ended(cli: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is that of the end; nothing is shown meanwhile, because this is no terminal."""
    run, looks = watched.stages(1), threading.Event()

    def next_stage(seconds: float) -> None:
        assert seconds == status.WATCH_S
        looks.set()
        stage = run.stages[0]
        stage()
        run.stages.remove(stage)
        watched.copy()

    monkeypatch.setattr(time, "sleep", next_stage)
    code, text = cli("status", FOLDER, "--watch", "--json")
    assert looks.is_set()
    assert run.stages == []
    assert (code, json.loads(text)["run"]["indexed"]) == (1, 5)


def test_dead_letters_are_shown_by_reason(cli: Cli, watched: Watched) -> None:
    """With the first of each, the way to replay them, and those of one reason."""
    run = watched.run()
    found = shown(cli("dead-letters", FOLDER, "--json"))["dead_letters"]
    assert (found["run_key"], found["count"], found["is_complete"]) == (run.key, 2, True)
    assert [(each["stage"], each["count"]) for each in found["reasons"]] == [("prepare", 1), ("ingest", 1)]
    code, text = cli("dead-letters", FOLDER)
    assert code == 0
    assert "2 dead letters when the run counted them" in text
    assert "s3://lake/in/b.jsonl line 1" in text
    prepare, ingest = found["locations"]
    assert f"dead letters: {prepare}\ncorrect them there" in text
    assert f"opensearch-batch replay {ingest} --s3-endpoint" in text
    only = shown(cli("dead-letters", FOLDER, "--reason", "not JSON", "--json"))["dead_letters"]
    assert only["samples"] == found["samples"][1:]
    assert "from the first 1 dead letters" in cli("dead-letters", FOLDER, "--search", "1")[1]


def test_jobs_in_flight_are_listed(cli: Cli, watched: Watched) -> None:
    """Jobs of the pipeline in memory end at once."""
    watched.stages(2)
    assert shown(cli("jobs", FOLDER, "--json"))["jobs"] == {"p": []}
    assert cli("jobs", FOLDER) == (0, "p: 0 jobs in flight\n")


def test_the_commands_in_the_documents_run(cli: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shows the pipeline that it names, in the work prefix of its file."""
    monkeypatch.chdir(ROOT)
    watched.run()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = re.findall(
        r"^(?:\$ )?(?:\.venv/bin/)?opensearch-batch ((?:runs|status|dead-letters|jobs)\b.*)$",
        "\n".join(page.read_text() for page in pages),
        re.MULTILINE,
    )
    assert {line.split()[0] for line in found} == {"runs", "status", "dead-letters", "jobs"}
    for line in sorted(set(found)):
        arguments = re.sub(r"\bpassages\b", FOLDER, line).split()
        code, text = cli(*arguments)
        assert code in (0, 1), (line, text)
