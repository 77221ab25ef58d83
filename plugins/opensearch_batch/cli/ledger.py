"""ledger: shows the record ledger of a pipeline, compares it with store and index, compacts it, or rebuilds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Annotated

import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import DIFFERENT, Account, Command, typer_command
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.runs.housekeeping import compact_stores
from opensearch_batch.core.runs.ledger_check import LedgerCheck, ScopeState, Size, StoreState, read_heads, store_folders
from opensearch_batch.core.runs.ledger_rebuild import rebuild_scope, rebuild_stores
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, list_folders
from opensearch_batch.core.types.counts import DONE, Savings

ledger = typer.Typer(
    help="Show the record ledger of a pipeline, compare it with store and index, compact it, or rebuild it.",
    no_args_is_help=True,
)
Location = Annotated[
    str, typer.Argument(metavar="LOCATION", help="Folder of the pipeline in its work prefix: s3://bucket/prefix/name.")
]
# Executes a command and returns the differences that it found; calling the third argument creates the cluster.
Action = Callable[[Objects, Layout, Callable[[], Cluster]], Sequence[str]]


class LedgerAccount(Account, frozen=True, kw_only=True):
    """Result of a ledger command; `files` is the size of the ledger, `savings` the sum over its scopes."""

    location: str | None = None
    scopes: Sequence[ScopeState] = ()
    stores: Sequence[StoreState] = ()
    files: Size = Size()
    savings: Savings = Savings()
    differences: Sequence[str] = ()


class LedgerCommand(ClientCommand[LedgerAccount]):
    """A ledger command: executes an action, then describes the ledger."""

    def __init__(self, location: str, clients: ClientFactory, action: Action) -> None:
        super().__init__(LedgerAccount(location=location.rstrip("/")), clients)
        self._action = action

    def execute(self) -> None:
        """Do the work of the command, and describe the ledger."""
        work_prefix, _, pipeline = (self.account.location or "").rpartition("/")
        objects, layout = self._stores(None), Layout(work_prefix, pipeline)
        if next(iter(objects.list(layout.scopes())), None) is None:
            raise ConfigError(
                f"{layout.scopes()}: no record ledger; give work_prefix and name of a pipeline that has run"
            )
        differences = self._action(objects, layout, self._cluster)
        self.update(differences=differences)
        heads, _ = read_heads(objects, layout)
        self.update(scopes=[ScopeState.of(scope, head) for scope, head in heads.items()])
        savings = reduce(Savings.plus, (head.savings for head in heads.values()), Savings())
        self.update(savings=savings, files=Size.of(objects, layout.scopes()))
        self.update(stores=[StoreState.of(objects, folder) for folder in store_folders(objects, layout)])
        self.update(state=DIFFERENT if differences else DONE)

    def show(self, console: Console) -> None:
        """Print scopes, stores, open shards and differences."""
        account = self.account
        console.print(f"{account.location}: {account.state} in {account.seconds:.1f} s")
        for scope in account.scopes:
            states = ", ".join(f"{count:,} {state}" for state, count in scope.states.items())
            end = "" if scope.is_committed else ", which has not committed"
            text = (
                f"scope {scope.scope}: {scope.objects:,} objects; {states}; index {scope.index}; run {scope.run}{end}"
            )
            console.print(text, soft_wrap=True)
        saved, files = account.savings, account.files
        console.print(
            f"{saved.runs:,} runs paid for {saved.paid:,} predictions; {saved.spared:,} were not paid for, "
            f"{saved.reused:,} of them for documents written from the store"
        )
        console.print(f"ledger: {files.objects:,} objects, {files.bytes:,} bytes")
        for store in account.stores:
            share = f"{store.needed / store.answers:.0%} of them needed" if store.answers else "none needed"
            answers = f"{store.answers:,} answers in {store.segments:,} segments, {share}"
            size = f"{store.size.objects:,} objects, {store.size.bytes:,} bytes, {store.garbage:,} files to delete"
            console.print(f"{store.folder}: {answers}; {size}", soft_wrap=True)
            for job_key, records in store.open.items():
                console.print(f"  open shard {job_key}: {records:,} records", soft_wrap=True)
        for difference in account.differences:
            console.print(f"- {difference}", soft_wrap=True)


@ledger.command("show")
@typer_command
def show_ledger(*, location: Location, clients: ClientFactory) -> Command[LedgerAccount]:
    """Show scopes, objects, states, segments and open shards, the size of the stores, and what they saved.

    Example: opensearch-batch ledger show s3://bucket/work/books
    """
    return LedgerCommand(location, clients, lambda objects, layout, _: read_heads(objects, layout)[1])


@ledger.command("verify")
@typer_command
def verify_ledger(
    *,
    location: Location,
    samples: Annotated[int, typer.Option(help="Documents of a scope, and segments of a store, to compare.")] = 100,
    clients: ClientFactory,
) -> Command[LedgerAccount]:
    """Compare the ledger with the prediction store and the index; name the differences.

    Example: opensearch-batch ledger verify s3://bucket/work/books --opensearch-url http://127.0.0.1:9200
    """
    return LedgerCommand(
        location,
        clients,
        lambda objects, layout, cluster: list(LedgerCheck(objects, layout, cluster(), samples=samples).differences()),
    )


@ledger.command("compact")
@typer_command
def compact_ledger(*, location: Location, clients: ClientFactory) -> Command[LedgerAccount]:
    """Write sparse and small segments of the prediction stores again, as fewer ones; runs do it a part at a time.

    Runs may be in progress. Old segments are deleted by a later run, 14 days after it first finds them unused.

    Example: opensearch-batch ledger compact s3://bucket/work/books
    """

    def compact(objects: Objects, layout: Layout, _: Callable[[], Cluster]) -> Sequence[str]:
        compact_stores(objects, store_folders(objects, layout))
        return []

    return LedgerCommand(location, clients, compact)


@ledger.command("rebuild")
@typer_command
def rebuild_ledger(
    *,
    location: Location,
    scope: Annotated[str | None, typer.Option(help="Scope to rebuild, as `show` prints it.")] = None,
    index: Annotated[str | None, typer.Option(help="Index of the pipeline, if the head is lost.")] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Rebuild the head of the prediction store instead.")
    ] = False,
    clients: ClientFactory,
) -> Command[LedgerAccount]:
    """Rebuild the ledger of a scope from its index.

    The next run compares the source with it, writes all documents from the prediction store, and pays for none of them.
    No run of the pipeline may be in progress.

    Example: opensearch-batch ledger rebuild s3://bucket/work/books --opensearch-url http://127.0.0.1:9200
    """

    def rebuild(objects: Objects, layout: Layout, cluster: Callable[[], Cluster]) -> Sequence[str]:
        if predictions:
            return rebuild_stores(objects, layout)
        names = [folder.rpartition("/")[2] for folder, _ in list_folders(objects, layout.scopes())]
        if scope is None and len(names) != 1:
            raise ConfigError(f"{layout.scopes()}: {len(names)} scopes; choose one of them with --scope: {names}")
        chosen = scope or names[0]
        heads, _ = read_heads(objects, layout)
        target = index or (heads[chosen].index if chosen in heads else "")
        if not target:
            raise ConfigError(f"scope {chosen}: its head does not name the index; give --index")
        rebuild_scope(objects, layout, cluster(), scope=chosen, index=target)
        return []

    return LedgerCommand(location, clients, rebuild)
