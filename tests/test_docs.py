"""What the documents say is what the project does: commands exist, files exist, quoted files are quoted whole."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_make_target_a_document_names_exists(document: Path) -> None:
    """`make -n` knows each."""
    for target in sorted(set(re.findall(r"`(?:\w+=\S+ )*make ([a-z-]+)", document.read_text()))):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)  # noqa: S603, S607 - make -n runs nothing
        assert done.returncode == 0, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_file_and_test_a_document_names_exists(document: Path) -> None:
    """Links, paths and names of tests lead somewhere."""
    text = document.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (document.parent / link).exists(), link
    for path in re.findall(r"`((?:dags|include|plugins|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


def test_the_readme_quotes_the_pipeline_file_whole() -> None:
    """What a reader copies is what runs."""
    assert (ROOT / "include" / "pipelines" / "passages_daily.yaml").read_text() in (ROOT / "README.md").read_text()
