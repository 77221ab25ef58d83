"""The files around the code say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from include.local_stack.opensearch_artifacts import MAVEN_GOAL

ROOT = Path(__file__).resolve().parent.parent


def test_every_requirement_is_pinned_as_the_constraints_say() -> None:
    """An install with constraints.txt gives exactly the pinned versions."""
    constraints = set((ROOT / "constraints.txt").read_text().split("\n"))
    for file in ("requirements.txt", "include/local_stack/requirements.txt", "tests/requirements.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if line and not line.startswith("#"):
                package, _, version = line.partition("==")
                name = re.sub(r"[-_.]+", "-", package.partition("[")[0].lower())
                assert f"{name}=={version}" in constraints


def test_what_is_installed_has_its_hashes() -> None:
    """`make` installs requirements.lock: the pins of constraints.txt, each with the hashes of its files; so is uv."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", "")
    locked = [line.partition(" --hash=")[0].rstrip() for line in text.splitlines() if " --hash=sha256:" in line]
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert sorted(line.split(" ;")[0].strip() for line in locked) == sorted(
        line.split(" ;")[0].strip() for line in pinned
    )
    assert len(locked) == len(text.splitlines())
    assert (ROOT / "include" / "local_stack" / "uv.txt").read_text().count("--hash=sha256:") > 1
    assert (ROOT / "Makefile").read_text().count("--require-hashes") == 2


def test_the_plugin_that_fetches_the_node_has_a_version() -> None:
    """Maven would else take whichever version its own release names."""
    assert re.fullmatch(r"[\w.]+:maven-dependency-plugin:\d+(\.\d+)+:copy-dependencies", MAVEN_GOAL)
