"""A person's own data: `init` drafts a pipeline that passes `check`, `search` asks its index; the console command."""

from __future__ import annotations

import csv
import importlib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from opensearch_batch.cli import main
from tests.command_line import ROOT
from tests.serving import Exchange, Server

TEXTS = ["Call me Ishmael, some years ago", "Emma Woodhouse, handsome, clever, and rich", "It was the best of times"]
ROWS = [
    {"id": number, "title": f"Book {number}", "text": text, "list-price": 1.5 * number}
    for number, text in enumerate(TEXTS)
]


def write_lines(path: Path) -> None:
    """Write JSON Lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))


def write_array(path: Path) -> None:
    """Write one JSON array."""
    path.write_text(json.dumps(ROWS, indent=1))


def write_csv(path: Path) -> None:
    """Write CSV with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    """Write a Parquet file."""
    pq.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.fixture
def include(tmp_path: Path) -> Path:
    """A folder for pipelines and indexes; the connectors are those of the package."""
    return tmp_path


@pytest.mark.parametrize("service", ["openai", "sagemaker", "bedrock", "cohere"])
@pytest.mark.parametrize(
    ("name", "write"),
    [("a.jsonl", write_lines), ("a.json", write_array), ("a.csv", write_csv), ("a.parquet", write_parquet)],
)
def test_a_drafted_pipeline_passes_the_check(
    include: Path, capsys: pytest.CaptureFixture[str], name: str, write: Callable[[Path], None], service: str
) -> None:
    """The model reads the longest text, the id is the unique one, and the test in the file passes."""
    sample = include / name
    write(sample)
    arguments = ["init", "books", "--sample", str(sample), "--folder", str(include), "--service", service]
    assert main([*arguments, "--json"]) == 0
    drafted = json.loads(capsys.readouterr().out)
    assert (drafted["input"], drafted["id"], drafted["records"]) == ("$.text", "$.id", len(ROWS))
    assert set(drafted["fields"]) == {"_id", "title", "text", "list-price"}
    assert main(["check", str(include / "pipelines" / "books.yaml"), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert (checked["tests"], checked["mistakes"]) == (1, 0)
    properties = json.loads((include / "indexes" / "books.json").read_text())["mappings"]["properties"]
    assert (properties["text"]["type"], properties["embedding"]["type"]) == ("text", "knn_vector")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--input", "$.txt"],
            "no text at $.txt in the sample; texts: $.title, $.text. Did you mean '$.text'?",
        ),
        (["--service", "opnai"], "--service: no service 'opnai'"),
    ],
)
def test_a_draft_is_refused_and_nothing_is_written(
    include: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """A wrong option names the values that are possible."""
    write_lines(include / "a.jsonl")
    assert main(["init", "books", "--sample", str(include / "a.jsonl"), "--folder", str(include), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (include / "pipelines").exists()


def test_a_draft_replaces_no_file(include: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a person has edited stays."""
    write_lines(include / "a.jsonl")
    arguments = ["init", "books", "--sample", str(include / "a.jsonl"), "--folder", str(include)]
    assert main(arguments) == 0
    file = include / "pipelines" / "books.yaml"
    file.write_text("edited")
    assert main(arguments) == 2
    assert f"{file} already exists" in capsys.readouterr().err
    assert file.read_text() == "edited"


class Node(Server):
    """A node with one index, one deployed model, and the same document for each query."""

    def __init__(self) -> None:
        self.searches: list[dict[str, Any]] = []
        super().__init__(self._answer)

    def _answer(self, request: Exchange) -> None:
        body = request.body()
        if request.path.startswith("/_plugins/_ml/models/_search"):
            source = {"name": "OpenAI Embedding model: text-embedding-3-small", "model_state": "DEPLOYED"}
            hits: list[dict[str, Any]] = [{"_id": "m1", "_source": source}]
        elif request.path.startswith("/books/_search"):
            self.searches.append(json.loads(body))
            hits = [{"_id": "1", "_score": 0.5, "_source": {"text": TEXTS[0]}}]
        else:
            vector = {"type": "knn_vector", "dimension": 1536}
            mappings = {"properties": {"title": {"type": "text"}, "text": {"type": "text"}, "embedding": vector}}
            request.reply(200, {"books": {"settings": {"index": {"uuid": "u"}}, "mappings": mappings}})
            return
        request.reply(200, {"hits": {"hits": hits}})


def test_a_question_is_asked_in_three_ways(include: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neural, text and hybrid, over the vector and the text that the model read."""
    write_lines(include / "a.jsonl")
    assert main(["init", "books", "--sample", str(include / "a.jsonl"), "--folder", str(include), "--json"]) == 0
    capsys.readouterr()
    node = Node()
    try:
        file = str(include / "pipelines" / "books.yaml")
        assert main(["search", file, "who is it", "--opensearch-url", node.url]) == 0
    finally:
        node.close()
    neural = {"neural": {"embedding": {"query_text": "who is it", "model_id": "m1", "k": 50}}}
    text = {"match": {"text": "who is it"}}
    assert [search["query"] for search in node.searches] == [neural, text, {"hybrid": {"queries": [neural, text]}}]
    shown = capsys.readouterr().out
    assert re.findall(r"^(\w+): who is it$", shown, re.MULTILINE) == ["neural", "text", "hybrid"]
    assert shown.count(f"0.500  1  {TEXTS[0]}") == 3


def test_the_console_command_is_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """`[project.scripts]` names a function that runs the arguments of the process."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["opensearch-batch"].partition(":")
    monkeypatch.setattr("sys.argv", ["opensearch-batch", "--version"])
    assert getattr(importlib.import_module(module), function)() == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_readme_needs_no_activated_environment() -> None:
    """Its commands name the program by its path in a clone, so that they work in a fresh shell."""
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^\$ (.+)$", readme, re.MULTILINE)
    assert any("opensearch-batch init" in command for command in commands)
    assert all(re.match(r"\.venv/bin/(python|opensearch-batch) |make \w+", command) for command in commands)


def test_the_drafted_file_has_no_anchors(include: Path) -> None:
    """YAML's anchors would puzzle who edits the file."""
    write_lines(include / "a.jsonl")
    assert main(["init", "books", "--sample", str(include / "a.jsonl"), "--folder", str(include), "--json"]) == 0
    text = (include / "pipelines" / "books.yaml").read_text()
    assert not re.search(r"[&*]id\d", text)
    assert yaml.safe_load(text)["ingest"]["field_map"]["embedding"] == "prediction"
