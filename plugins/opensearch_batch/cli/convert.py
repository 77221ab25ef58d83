"""convert: prints the pipelines of a Data Prepper file as pipeline files; offline, writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.command import REFUSED, Account, Command
from opensearch_batch.core.data_prepper.convert import Converted, convert
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, is_data_prepper
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.types.counts import DONE

SEPARATOR = "---\n"


class ConvertAccount(Account, frozen=True, kw_only=True):
    """The converted pipelines; the state is REFUSED if one cannot be converted."""

    pipelines: list[Converted] = msgspec.field(default_factory=list)
    refused: list[str] = msgspec.field(default_factory=list)


class Convert(Command[ConvertAccount]):
    """Convert the pipelines of a Data Prepper file, with comments on what changes and why."""

    when_stopped = "nothing was changed"

    def __init__(
        self, *, file: Annotated[Path, typer.Argument(metavar="FILE", help="Data Prepper pipeline file.")]
    ) -> None:
        super().__init__(ConvertAccount())
        self._path = file

    def execute(self) -> None:
        if not self._path.is_file():
            raise ConfigError(f"{self._path}: no such file")
        if not is_data_prepper(self._path):
            raise ConfigError(f"{self._path}: not a Data Prepper file: no pipeline with source and sink")
        file = DataPrepperFile(self._path)
        results, refused = list[Converted](), list[str]()
        for pipeline in file.pipelines:
            try:
                results += convert(file, pipeline)
            except ConfigError as error:
                refused.append(str(error))
        self.update(state=REFUSED if refused else DONE, pipelines=results, refused=refused)

    def show(self, console: Console) -> None:  # noqa: ARG002 - the text is printed unchanged
        """Print the pipelines to stdout and the refusals to stderr."""
        sys.stdout.write(SEPARATOR.join(each.text for each in self.account.pipelines))
        for error in self.account.refused:
            sys.stderr.write(f"refused: {error}\n")
