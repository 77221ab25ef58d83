"""check: pipeline files are read as Airflow would, their tests are run, and their shards and jobs counted; offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli import options
from opensearch_batch.cli.command import REFUSED, Account, Command, run
from opensearch_batch.core.data_prepper.check import check_pipelines
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.engine import DONE
from opensearch_batch.core.pipeline.check import Checked
from opensearch_batch.core.pipeline.estimate import Estimate
from opensearch_batch.core.pipeline.file import pipeline_files
from opensearch_batch.services.registry import adapter_of

FOLDER = Path("include/pipelines")


class CheckAccount(Account, frozen=True, kw_only=True):
    """What was found in each file; the state is REFUSED when there is a mistake in one."""

    pipelines: list[Checked] = msgspec.field(default_factory=list)
    tests: int = 0
    mistakes: int = 0


def check(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE.yaml]...", help=f"Pipeline files, or folders of them; {FOLDER}/ if none."),
    ] = None,
    listing: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="What `aws s3 ls --recursive` printed: says how many jobs it makes.",
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Check pipeline files: what they say, their tests, their plan. Nothing is asked of any server."""
    return run(Check(files or [FOLDER], listing), as_json=as_json, debug=debug)


class Check(Command[CheckAccount]):
    """One check of files."""

    when_stopped = "nothing was changed"

    def __init__(self, files: list[Path], listing: Path | None) -> None:
        super().__init__(CheckAccount())
        self._files = files
        self._listing = listing

    def work(self) -> None:
        """Check each file; a mistake in one does not hide those of others."""
        listing = None if self._listing is None else self._listing.read_text(encoding="utf-8")
        found = check_pipelines(_pipeline_files(self._files), adapter_of, listing)
        mistakes = sum(len(checked.mistakes) for checked in found)
        self.tell(
            state=REFUSED if mistakes else DONE,
            pipelines=found,
            tests=sum(checked.tests for checked in found),
            mistakes=mistakes,
        )

    def show(self, console: Console) -> None:
        """Tell people what was found."""
        account = self.account
        for checked in account.pipelines:
            for mistake in checked.mistakes:
                console.print(mistake)
            if not checked.mistakes:
                console.print("\n".join(_found(checked)))
            if checked.plan:
                console.print(f"  {_told(checked.plan)}")
        files, tests = _count(len(account.pipelines), "file"), _count(account.tests, "test")
        console.print(f"{files}, {tests}, {_count(account.mistakes, 'mistake')}")


def _pipeline_files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += pipeline_files(path)
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"{path}: there is no such file or folder")
    if not found:
        raise ConfigError(f"{', '.join(map(str, paths))}: no *.yaml or *.yml there")
    return found


def _found(checked: Checked) -> Iterator[str]:
    """Yield what a file without mistakes does, and what is to be known of it."""
    for way in checked.pipelines:
        yield f"{checked.file}: {' -> '.join(part for part in (way.source, way.service, way.index) if part)}"
    if not checked.pipelines:
        road = f"{checked.source} -> {checked.service} -> {checked.index}"
        yield f"{checked.file}: {road}; {_count(checked.tests, 'test')}"
    yield from checked.remarks
    for finding in checked.findings:
        yield f"{checked.file}:{finding.line} {finding.place}: {finding.text}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _told(plan: Estimate) -> str:
    records = "" if plan.records is None else f", about {plan.records:,} records"
    compressed = f" ({plan.compressed:,} of the objects are compressed: more)" if plan.compressed else ""
    return f"{plan.objects:,} objects, {plan.bytes:,} bytes{records}: {plan.shards:,} shards, a job each{compressed}"
