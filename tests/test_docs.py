"""The documents are compared with the project: commands, links, files, modules, classes and trees exist."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from include.local_stack.incremental import CLASSES
from opensearch_batch.cli import app
from opensearch_batch.core.runs.metrics import METRICS
from opensearch_batch.core.types.manifest import PrepareCounts
from tests.command_line import command

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "plugins" / "opensearch_batch"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
SOURCES = [
    path for folder in ("plugins", "dags", "include", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
COMMANDS = (
    *("ingest", "replay", "check", "convert", "schema", "init", "search", "ledger", "predictions", "scale"),
    *("runs", "status", "jobs", "dead-letters"),
)
SUBCOMMANDS = {"ledger": ("show", "verify", "compact", "rebuild"), "predictions": ("export",)}
PROGRAM = r"(?:(?<=\.venv/bin/)|(?<![/\w-]))opensearch-batch"
# Names that a page mentions of libraries which were not chosen, and of AWS.
FOREIGN = {"DescribeTransformJob", "SqsSensorTrigger"}
# Names of metrics, which look like modules.
MEASURED = {metric.name for metric in METRICS}
# Files that a how-to writes.
WRITTEN = {"include/indexes/books.json", "include/pipelines/books.yaml", "include/pipelines/products.yaml"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_make_target_in_a_document_exists(document: Path) -> None:
    """`make -n` accepts each."""
    for target in sorted(set(re.findall(r"(?:`|\$ )(?:\w+=\S+ )*make ([a-z-]+)", document.read_text()))):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)  # noqa: S603, S607 - make -n runs nothing
        assert done.returncode == 0, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_link_in_a_document_has_a_target(document: Path) -> None:
    """Files exist, and anchors are headings."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_file_and_test_in_a_document_exists(document: Path) -> None:
    """Paths in backticks, and names of tests."""
    text = document.read_text()
    for path in re.findall(r"`((?:dags|include|plugins|tests|docs|benchmarks)/[\w./-]+)`", text):
        assert path in WRITTEN or (ROOT / path).exists(), path
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in code(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_module_and_class_in_a_document_exists(document: Path) -> None:
    """Modules by path below the package or by dotted name, classes by name."""
    text = document.read_text()
    for path in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        assert any(str(source).endswith(f"/{path}") for source in SOURCES), path
    for path in re.findall(r"`((?:core|services|operators|sensors|triggers|hooks|dag_factory|cli)/[\w/]*)`", text):
        assert (PACKAGE / path).exists(), path
    for name in re.findall(r"`opensearch_batch((?:\.\w+)+)`", text):
        path = PACKAGE.joinpath(*name.strip(".").split("."))
        is_module = path.is_dir() or path.with_suffix(".py").exists()
        assert is_module or f"opensearch_batch{name}" in MEASURED, name
    for name in set(re.findall(r"`([A-Z][a-z]+(?:[A-Z]+[a-z]+)+)(?:\(.*\)|\[T\])?`", text)) - FOREIGN:
        assert re.search(rf"\b{name}\b", code()), name


@cache
def code() -> str:
    """Return all Python code of the project."""
    return "\n".join(source.read_text() for source in SOURCES if source != Path(__file__))


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_tree_in_a_document_is_the_one_on_disk(document: Path) -> None:
    """Each line of a tree is a name below its folder, by its indentation."""
    for tree in re.findall(r"```text\n(dags/.*?)```", document.read_text(), re.DOTALL):
        above: list[tuple[int, Path]] = [(-1, ROOT)]
        for line in tree.splitlines():
            indent = len(line) - len(line.lstrip())
            above = [(depth, folder) for depth, folder in above if depth < indent]
            names = line.split("  ")[0] if not indent else line.strip().split("  ")[0]
            for name in names.split():
                assert (above[-1][1] / name).exists(), (line, name)
            above.append((indent, above[-1][1] / names.split()[0]))


def test_the_classes_of_the_ledger_page_are_those_of_the_demo() -> None:
    """The page, the demo and the manifest's counts have the same classes; the demo has no tombstones."""
    _, _, page = (ROOT / "docs" / "explanation" / "ledger.md").read_text().partition("## Classes of records")
    rows = re.findall(r"^\| ([^|]+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert set(rows) - {"class", "---"} == {*CLASSES, "tombstone"}
    assert set(CLASSES.values()) <= set(PrepareCounts.__struct_fields__)


def test_every_name_in_the_glossary_is_in_the_package() -> None:
    """The last column of its tables has names of classes, functions and fields."""
    package = "\n".join(source.read_text() for source in PACKAGE.rglob("*.py"))
    rows = re.findall(r"^\|.*\| ([^|]*) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    for name in re.findall(r"`(\w+)`", " ".join(rows)):
        assert re.search(rf"\b{name}\b", package), name


def test_every_command_in_a_document_has_its_options() -> None:
    """Also the commands with placeholders, which no test can run."""
    helps = {name: help_of(name) for name in COMMANDS}
    for group, names in SUBCOMMANDS.items():
        for name in names:
            assert name in helps[group]
            helps[group] += help_of(group, name)
    for document in DOCUMENTS:
        for name, arguments in re.findall(rf"{PROGRAM} (\w[\w-]*)([^`\n]*)", document.read_text()):
            assert name in helps, (document, name)
            for option in re.findall(r"--[a-z0-9-]+", arguments):
                assert option in helps[name], (document, name, option)
        for option in re.findall(r"`(--[a-z][a-z0-9-]*)", document.read_text()):
            assert any(option in text for text in helps.values()), (document, option)
        for name in re.findall(r"python -m benchmarks (\w+)", document.read_text()):
            assert f'NAME = "{name}"' in code(), (document, name)


def help_of(*names: str) -> str:
    """Return what ``--help`` prints; a process for each of some thirty commands would take a minute."""
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [*names, "--help"]).stdout


def test_the_readme_quotes_the_pipeline_file_whole() -> None:
    """The quoted file is the one that runs."""
    assert (ROOT / "include" / "pipelines" / "passages_daily.yaml").read_text() in (ROOT / "README.md").read_text()


def test_the_new_pipeline_of_the_how_to_passes_the_check(tmp_path: Path) -> None:
    """Its index and its pipeline are checked as files, with the tests in it."""
    text = (ROOT / "docs" / "how_to" / "new_pipeline.md").read_text()
    (index,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (pipeline,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    check(tmp_path, pipeline, index)


def test_the_pipelines_of_the_how_to_on_indexes_pass_the_check(tmp_path: Path) -> None:
    """The one in place whole, and the one to another index with the parts that differ."""
    text = (ROOT / "docs" / "how_to" / "index_as_source.md").read_text()
    in_place, copy = (textwrap.dedent(each) for each in re.findall(r" *```yaml\n(.*?)```", text, re.DOTALL))
    check(tmp_path / "in_place", in_place, "{}")
    merged = {**yaml.safe_load(in_place), **yaml.safe_load(copy), "tests": []}
    mappings = {"properties": {"embedding": {"type": "knn_vector", "dimension": 384}}}
    body = {"settings": {"index.knn": True}, "mappings": mappings}
    check(tmp_path / "copy", yaml.safe_dump(merged), json.dumps(body), name="products", tests=0)


def check(folder: Path, pipeline: str, index: str, *, name: str = "books", tests: int = 1) -> None:
    """Check a pipeline and its index as files; there are no mistakes."""
    for part, file, content in (("indexes", f"{name}.json", index), ("pipelines", f"{name}.yaml", pipeline)):
        (folder / part).mkdir(parents=True)
        (folder / part / file).write_text(content)
    done = command("check", str(folder / "pipelines"), "--json")
    assert done.returncode == 0, done.stdout
    account = json.loads(done.stdout)
    assert (account["tests"], account["mistakes"]) == (tests, 0)
