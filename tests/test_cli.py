"""The command line: its documents, its one JSON object, its exit codes, and no secret in anything it says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.command_line import ROOT, SAMPLES, account, command, write_request
from tests.faults.proxy import Proxy, answers
from tests.lab import Lab
from tests.waiting import WAIT_S

SECRET = "s3cr3t-of-the-tests"
MEMBERS = {
    "state", "seconds", "index", "read", "indexed", "unchanged", "filtered", "dead_letters", "unmatched", "joined",
    "superseded", "blank", "nulls", "sources", "dead_letters_location", "remarks",
}  # fmt: skip


@pytest.fixture
def request_file(tmp_path: Path, index: str) -> Path:
    """A request beside its rows, of which one is no JSON."""
    (tmp_path / "rows.jsonl").write_text('{"id":1,"t":"a"}\n{oops\n{"id":2,"t":"b"}\n')
    return write_request(tmp_path, index)


def change(file: Path, **members: Any) -> None:
    """Change members of a request."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **members}))


def test_the_documented_request_of_one_file(lab: Lab) -> None:
    """SageMaker's output, as the document has it, from any folder; a second run writes nothing."""
    url = lab.stack.addresses.opensearch
    try:
        done = command("ingest", str(SAMPLES / "sagemaker.json"), "--opensearch-url", url, "--json",
            "--work-prefix", "w",
                       cwd=Path(os.environ["AIRFLOW_HOME"]))  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert set(account(done.stdout)) == MEMBERS
        rows = [json.loads(line) for line in (SAMPLES / "sagemaker_batch.json.out").read_text().splitlines()]
        for row in rows:
            found = lab.node("GET", f"my-nlp-index/_doc/{row['id']}")["_source"]
            assert found == {
                "chapter": row["content"][0],
                "title": row["content"][1],
                "chapter_embedding": row["SageMakerOutput"][0],
                "title_embedding": row["SageMakerOutput"][1],
                "id": row["id"],
            }
        writes = lab.writes("my-nlp-index")
        again = command("ingest", str(SAMPLES / "sagemaker.json"), "--opensearch-url", url, "--json",
            "--work-prefix", "w",
                        cwd=Path(os.environ["AIRFLOW_HOME"]))  # fmt: skip
        told = account(again.stdout)
        assert (told["indexed"], told["unchanged"]) == (0, 2)
        now = lab.writes("my-nlp-index")
        assert (writes, now) == (2, 2)
    finally:
        lab.node("DELETE", "my-nlp-index")


def test_the_documented_request_of_three_files_at_openai(lab: Lab, tmp_path: Path) -> None:
    """The third file has no id path and joins by the one the others share; the key stands in the request."""
    key, base = lab.stack.credentials.secret_key, f"{lab.stack.addresses.ai_services}/v1"
    request = json.loads((SAMPLES / "openai.json").read_text())
    with openai.OpenAI(api_key=key, base_url=base) as client:
        names = request["data_source"]["source"]
        ids = [client.files.create(file=SAMPLES / name, purpose="batch").id for name in names]
    request |= {"data_source": {"type": "openAI", "source": ids}, "credential": {"openAI_key": key}}
    try:
        done = command(
            "ingest", "-", "--opensearch-url", lab.stack.addresses.opensearch, "--openai-base-url", base, "--json",
            cwd=tmp_path, stdin=json.dumps(request),
        )  # fmt: skip
        told = account(done.stdout)
        assert (told["state"], told["read"], told["indexed"], told["joined"]) == ("DONE", 9, 3, 6)
        found = lab.node("GET", "my-nlp-index-openai/_doc/request-2")["_source"]
        assert set(found) == {
            "question", "answer", "question_embedding", "answer_embedding", "custom_field1", "custom_field2"
        }  # fmt: skip
        assert (found["question"], found["custom_field2"]) == ("What is the meaning of work?", 2)
        assert key not in done.stdout + done.stderr
    finally:
        lab.http.delete(f"{lab.stack.addresses.opensearch}/my-nlp-index-openai", timeout=WAIT_S)


@pytest.mark.slow
def test_dead_letters_are_said_and_replayed(lab: Lab, request_file: Path) -> None:
    """Exit code 1; after the row is mended in its queue, the replay empties it."""
    url = lab.stack.addresses.opensearch
    done = command("ingest", str(request_file), "--opensearch-url", url)
    assert done.returncode == 1, done.stderr
    (hint,) = re.findall(r"opensearch-batch (replay .+)", done.stdout)
    queue = Path(hint.split()[1])
    (part,) = queue.glob("*.jsonl")
    letter = json.loads(part.read_text())
    assert (letter["line"], letter["offset"], letter["record"]) == (2, 17, "{oops")
    unmended = command("replay", str(queue), "--opensearch-url", url, "--json")
    assert (unmended.returncode, account(unmended.stdout)["dead_letters"]) == (1, 1)
    part.write_text(json.dumps({**letter, "record": '{"id":3,"t":"c"}'}) + "\n")
    mended = command(*hint.split())
    assert mended.returncode == 0, mended.stderr
    assert list(queue.glob("*.jsonl")) == []
    assert lab.node("POST", f"{request_file and account_index(request_file)}/_refresh")["_shards"]["failed"] == 0
    assert lab.node("GET", f"{account_index(request_file)}/_count")["count"] == 3


def account_index(file: Path) -> str:
    """Return the index a request names."""
    return str(json.loads(file.read_text())["index_name"])


def test_a_dry_run_writes_nothing(lab: Lab, request_file: Path, index: str) -> None:
    """It shows what would be sent and what would not."""
    before = sorted(request_file.parent.rglob("*"))
    done = command(
        "ingest", str(request_file), "--opensearch-url", lab.stack.addresses.opensearch, "--dry-run", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = account(done.stdout)
    assert (told["state"], told["documents"], told["dead_letters"], told["whole"]) == ("DRY_RUN", 2, 1, True)
    assert told["first_documents"][0] == {"id": "1", "source": {"t": "a"}, "partial": False}
    assert told["first_dead_letters"][0]["line"] == 2
    assert told["index_found"] is False
    assert sorted(request_file.parent.rglob("*")) == before
    assert lab.http.head(f"{lab.stack.addresses.opensearch}/{index}", timeout=WAIT_S).status_code == 404
    shown = command("ingest", str(SAMPLES / "openai.json"), "--dry-run")
    assert "3 documents (0 partial), 0 dead letters" in shown.stdout
    assert "… 384 numbers" in shown.stdout


def test_a_dry_run_looks_at_the_first_rows_only(request_file: Path) -> None:
    """A partner that may follow is not missed; where all rows were looked at, the policy is the run's own."""
    folder, numbers = request_file.parent, range(1_500)
    (folder / "rows.jsonl").write_text("".join(f'{{"id":{number},"t":"a"}}\n' for number in numbers))
    (folder / "more.jsonl").write_text("".join(f'{{"id":{number},"u":1}}\n' for number in reversed(numbers)))
    change(
        request_file,
        field_map={"_id": ["source[0].$.id", "source[1].$.id"], "t": "source[0].$.t", "u": "source[1].$.u"},
        data_source={"type": "local", "source": ["rows.jsonl", "more.jsonl"]},
        on_unmatched="dead_letter",
    )
    told = account(command("ingest", str(request_file), "--dry-run", "--json").stdout)
    assert (told["whole"], told["rows"], told["documents"], told["partial"]) == (False, 2_000, 1_500, 1_000)
    assert (told["dead_letters"], [shown["partial"] for shown in told["first_documents"]]) == (0, [False] * 3)
    assert any("a run may complete the partial documents" in remark for remark in told["remarks"])
    (folder / "rows.jsonl").write_text('{"id":1,"t":"a"}\n{"id":2,"t":"b"}\n')
    (folder / "more.jsonl").write_text('{"id":1,"u":1}\n')
    told = account(command("ingest", str(request_file), "--dry-run", "--json").stdout)
    assert (told["whole"], told["documents"], told["dead_letters"]) == (True, 1, 1)
    assert "no row with id '2' in source[1]" in told["first_dead_letters"][0]["reason"]
    change(request_file, on_unmatched="fail")
    refused = command("ingest", str(request_file), "--dry-run")
    assert (refused.returncode, "id '2'" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("members", "arguments", "message"),
    [
        ({"fieldmap": {}}, [], "fieldmap: no such member. Did you mean 'field_map'?"),
        ({"data_source": {"type": "local", "source": ["rosw.jsonl"]}}, [], "Did you mean 'rows.jsonl'?"),
        ({}, ["--user", "me", "--opensearch-url", "http://127.0.0.1:1"], "no password for --user me"),
        ({}, ["--user", "me", "--aws-region", "r", "--opensearch-url", "http://127.0.0.1:1"], "use one of them"),
        ({"credential": {"openAI_key": "<you openAI key>"}}, [], "credential.openai_key contains a placeholder"),
        ({"data_source": {"type": "openAI", "source": ["file-<your file>"]}}, [], "documentation; replace it"),
        ({}, ["--memory-mb", "no"], "see opensearch-batch ingest --help"),
        ({"data_source": {"type": "s3", "source": ["s3://b/k"]}, "credential": {"access_key": "a", "sekret": SECRET}},
         [], "credential.sekret: no such member"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    request_file: Path, members: dict[str, Any], arguments: list[str], message: str
) -> None:
    """Exit code 2, one line with the remedy, and the same in JSON."""
    change(request_file, **members)
    urls = [] if "--opensearch-url" in arguments else ["--opensearch-url", "http://127.0.0.1:1"]
    done = command("ingest", str(request_file), *urls, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.startswith("refused: ")
    assert len(done.stderr.splitlines()) == 1
    told = command("ingest", str(request_file), *urls, *arguments, "--json")
    assert (told.returncode, account(told.stdout)["state"]) == (2, "REFUSED")
    assert message in account(told.stdout)["error"]
    assert SECRET not in done.stderr + told.stdout + told.stderr


def test_what_is_no_command_is_refused(tmp_path: Path) -> None:
    """The help is named, and shown where nothing was asked for."""
    wrong = command("inject")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert (
        wrong.stderr
        == "refused: No such command 'inject'. Did you mean 'ingest', 'init'?; see opensearch-batch --help\n"
    )
    assert command().returncode == 2
    gone = command("ingest", str(tmp_path / "no.json"))
    assert (gone.returncode, "no.json: cannot read the request" in gone.stderr) == (2, True)
    queue = command("replay", str(tmp_path), "--opensearch-url", "http://127.0.0.1:1", "--json")
    assert (queue.returncode, account(queue.stdout)["state"], account(queue.stdout)["queue"]) == (
        2,
        "REFUSED",
        str(tmp_path),
    )
    assert "no dead letters there" in account(queue.stdout)["error"]


def test_an_answer_that_nobody_expects_fails(lab: Lab, request_file: Path) -> None:
    """Exit code 3 and one line with the error's kind; the traceback only when it is asked for."""
    proxy = Proxy(lab.stack.addresses.opensearch)
    try:
        proxy.on("GET /", 1, answers(200, b'{"x":{}}'), times=2)
        done = command("ingest", str(request_file), "--opensearch-url", proxy.url)
        debug = command("ingest", str(request_file), "--opensearch-url", proxy.url, "--debug")
    finally:
        proxy.close()
    assert (done.returncode, done.stderr) == (3, "failed: KeyError: 'settings'\n")
    assert (debug.returncode, debug.stderr.startswith("Traceback")) == (3, True)


def test_a_damaged_source_fails(lab: Lab, request_file: Path) -> None:
    """Exit code 3: what can be done is to upload it again."""
    (request_file.parent / "rows.jsonl.gz").write_bytes(b"no gzip")
    change(request_file, data_source={"type": "local", "source": ["rows.jsonl.gz"]})
    done = command("ingest", str(request_file), "--opensearch-url", lab.stack.addresses.opensearch)
    assert done.returncode == 3
    assert "rows.jsonl.gz: damaged" in done.stderr


def test_a_server_that_is_away_fails(request_file: Path) -> None:
    """Exit code 3: the same command may work later."""
    done = command("ingest", str(request_file), "--opensearch-url", "http://127.0.0.1:1", OPENSEARCH_PASSWORD=SECRET)
    assert done.returncode == 3
    assert done.stderr.startswith("failed: OpenSearch http://127.0.0.1:1 does not answer")
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.slow
def test_the_ingest_commands_in_the_documents_run(lab: Lab) -> None:
    """Each runs against the address of the stack."""
    shown = [line for line in shown_commands() if line.startswith("ingest ")]
    assert len(shown) >= 4
    try:
        for line in shown:
            arguments = line.replace("http://127.0.0.1:9200", lab.stack.addresses.opensearch).split()
            work_prefix = (
                [] if "--dry-run" in arguments else ["--work-prefix", str(Path(os.environ["AIRFLOW_HOME"]) / "cli")]
            )
            done = command(*arguments, *work_prefix)
            assert done.returncode == 0, (line, done.stderr)
    finally:
        for name in ("my-nlp-index", "my-nlp-index-openai"):
            lab.http.delete(f"{lab.stack.addresses.opensearch}/{name}", timeout=WAIT_S)


def test_the_offline_commands_in_the_documents_run() -> None:
    """`check`, `convert` and `schema` need no server."""
    shown = [line for line in shown_commands() if not line.startswith(("ingest ", "ledger "))]
    assert len(shown) >= 2
    for line in sorted(set(shown)):
        done = command(*line.split())
        assert done.returncode == 0, (line, done.stderr)


def shown_commands() -> list[str]:
    """Return the commands behind a `$` in README and docs/."""
    prefix = "$ opensearch-batch "
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    lines = [line for page in pages for line in page.read_text().splitlines()]
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def test_version_and_help() -> None:
    """Help names the commands, and each has an example."""
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", command("--version").stdout)
    assert {"ingest", "replay"} <= set(command("--help").stdout.split())
    for name in ("ingest", "replay"):
        assert f"Example: opensearch-batch {name}" in re.sub(r"\s+", " ", command(name, "--help").stdout)
