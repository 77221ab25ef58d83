"""Command line: ingest and checks without Airflow. Every command except `schema` prints an account.

Each command is one class or function in its own module, registered here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from opensearch_batch import __version__
from opensearch_batch.cli.check import Check, CheckAccount
from opensearch_batch.cli.command import Account, Command, typer_command, usage_error
from opensearch_batch.cli.convert import Convert, ConvertAccount
from opensearch_batch.cli.dead_letters import DeadLetterList, DeadLettersAccount
from opensearch_batch.cli.ingest import IngestAccount, ingest
from opensearch_batch.cli.init import Init, InitAccount
from opensearch_batch.cli.jobs import Jobs, JobsAccount
from opensearch_batch.cli.ledger import LedgerAccount, ledger
from opensearch_batch.cli.predictions import ExportAccount, predictions
from opensearch_batch.cli.replay import Replay, ReplayAccount
from opensearch_batch.cli.runs import Runs, RunsAccount
from opensearch_batch.cli.scale import Scale, ScaleAccount
from opensearch_batch.cli.schema import schema
from opensearch_batch.cli.search import Search, SearchAccount
from opensearch_batch.cli.status import Status, StatusAccount

PROGRAM = "opensearch-batch"
# The account type of each command; an account of this type is also printed after invalid arguments.
ACCOUNTS: dict[str, type[Account]] = {
    "ingest": IngestAccount,
    "replay": ReplayAccount,
    "check": CheckAccount,
    "convert": ConvertAccount,
    "init": InitAccount,
    "search": SearchAccount,
    "runs": RunsAccount,
    "status": StatusAccount,
    "jobs": JobsAccount,
    "dead-letters": DeadLettersAccount,
    "ledger": LedgerAccount,
    "predictions": ExportAccount,
    "scale": ScaleAccount,
}

app = typer.Typer(
    help="Pipelines and ingestion without Airflow. Exit codes: 0 done, 1 done with dead letters, 2 refused, 3 failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., Command[Any]]] = {
    "init": Init,
    "check": Check,
    "search": Search,
    "runs": Runs,
    "status": Status,
    "jobs": Jobs,
    "dead-letters": DeadLetterList,
    "ingest": ingest,
    "replay": Replay,
    "convert": Convert,
    "scale": Scale,
}
for command, make in COMMANDS.items():
    app.command(command)(typer_command(make))
app.command()(schema)
app.add_typer(ledger, name="ledger")
app.add_typer(predictions, name="predictions")


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer passes the value of a flag by position
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        program = typer.main.get_command(app)
        return int(program.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False) or 0)
    except typer.TyperException as error:
        name = next((word for word in arguments if word in ACCOUNTS), "")
        # Without arguments, typer shows the help and raises an error without a message.
        message = error.format_message() or "no command"
        account = ACCOUNTS.get(name, IngestAccount)
        return usage_error(message, account, as_json="--json" in arguments, hint=f"{PROGRAM} {name}".strip())
