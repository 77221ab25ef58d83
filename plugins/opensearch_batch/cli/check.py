"""check: reads pipeline files as Airflow does, runs their tests, and estimates their shards and jobs; offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.command import REFUSED, Account, Command
from opensearch_batch.core.data_prepper.check import check_pipelines
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.check import CheckResult
from opensearch_batch.core.pipeline.estimate import Estimate
from opensearch_batch.core.pipeline.file import pipeline_files
from opensearch_batch.core.types.counts import DONE
from opensearch_batch.services.registry import adapter_of

FOLDER = Path("include/pipelines")


class CheckAccount(Account, frozen=True, kw_only=True):
    """Result for each file; the state is REFUSED if any file has a mistake."""

    pipelines: list[CheckResult] = msgspec.field(default_factory=list)
    tests: int = 0
    mistakes: int = 0


class Check(Command[CheckAccount]):
    """Check pipeline files and run the tests in them, offline."""

    when_stopped = "nothing was changed"

    def __init__(
        self,
        *,
        files: Annotated[
            list[Path] | None,
            typer.Argument(metavar="[FILE.yaml]...", help=f"Pipeline files or folders. Default: {FOLDER}/."),
        ] = None,
        listing: Annotated[
            Path | None,
            typer.Option(
                exists=True,
                dir_okay=False,
                help="Output of `aws s3 ls --recursive`; estimates the number of jobs.",
            ),
        ] = None,
    ) -> None:
        super().__init__(CheckAccount())
        self._files = files or [FOLDER]
        self._listing = listing

    def execute(self) -> None:
        listing = None if self._listing is None else self._listing.read_text(encoding="utf-8")
        checked_files = check_pipelines(_pipeline_files(self._files), adapter_of, listing)
        mistakes = sum(len(checked.mistakes) for checked in checked_files)
        self.update(
            state=REFUSED if mistakes else DONE,
            pipelines=checked_files,
            tests=sum(checked.tests for checked in checked_files),
            mistakes=mistakes,
        )

    def show(self, console: Console) -> None:
        account = self.account
        for checked in account.pipelines:
            for mistake in checked.mistakes:
                console.print(mistake)
            if not checked.mistakes:
                console.print("\n".join(_lines_of(checked)))
            if checked.estimate:
                console.print(f"  {_estimate_text(checked.estimate)}")
        files, tests = _count(len(account.pipelines), "file"), _count(account.tests, "test")
        console.print(f"{files}, {tests}, {_count(account.mistakes, 'mistake')}")


def _pipeline_files(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += pipeline_files(path)
        elif path.exists():
            files.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder")
    if not files:
        raise ConfigError(f"{', '.join(map(str, paths))}: no *.yaml or *.yml file")
    return files


def _lines_of(checked: CheckResult) -> Iterator[str]:
    """Yield the lines printed for a file without mistakes."""
    for pipeline in checked.pipelines:
        path = " -> ".join(part for part in (pipeline.source, pipeline.service, pipeline.index) if part)
        yield f"{checked.file}: {path}"
    if not checked.pipelines:
        path = f"{checked.source} -> {checked.service} -> {checked.index}"
        yield f"{checked.file}: {path}; {_count(checked.tests, 'test')}; {checked.mode}"
    yield from checked.remarks
    for finding in checked.findings:
        yield f"{checked.file}:{finding.line} {finding.location}: {finding.text}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _estimate_text(plan: Estimate) -> str:
    records = "" if plan.records is None else f", about {plan.records:,} records"
    compressed = f" (compressed objects: {plan.compressed:,}; expect more jobs)" if plan.compressed else ""
    return f"{plan.objects:,} objects, {plan.bytes:,} bytes{records}: {plan.shards:,} shards, one job each{compressed}"
