"""ledger: shows the record ledger of a pipeline, compares it with store and index, and makes it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import DIFFERENT, Account, Command, typer_command
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.runs.ledger_check import (
    LedgerCheck,
    ScopeState,
    StoreState,
    read_heads,
    scope_state,
    store_folders,
    store_state,
)
from opensearch_batch.core.runs.ledger_rebuild import rebuild_scope, rebuild_stores
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import DONE

SAMPLES = 100
ledger = typer.Typer(
    help="Show the record ledger of a pipeline, compare it with the prediction store and the index, or make it again.",
    no_args_is_help=True,
)
Location = Annotated[
    str, typer.Argument(metavar="LOCATION", help="Folder of the pipeline in its work prefix: s3://bucket/prefix/name.")
]


class LedgerAccount(Account, frozen=True, kw_only=True):
    """Result of a ledger command; `documents` are those in the new ledger of a scope."""

    location: str | None = None
    scopes: Sequence[ScopeState] = ()
    stores: Sequence[StoreState] = ()
    differences: Sequence[str] = ()
    documents: int | None = None


class LedgerCommand(ClientCommand[LedgerAccount]):
    """Base of the ledger commands."""

    def __init__(self, location: str, clients: ClientFactory) -> None:
        super().__init__(LedgerAccount(location=location.rstrip("/")), clients)
        self._objects = self._stores(None)

    def _layout(self) -> Layout:
        work_prefix, _, pipeline = (self.account.location or "").rpartition("/")
        return Layout(work_prefix, pipeline)

    def _describe(self, layout: Layout) -> None:
        """Describe what can be read, and name what cannot."""
        heads, unreadable = read_heads(self._objects, layout)
        if not heads and not unreadable:
            raise ConfigError(
                f"{layout.scopes()}: no record ledger; give work_prefix and name of a pipeline that has run"
            )
        scopes = [scope_state(scope, head) for scope, head in heads.items()]
        self.update(scopes=scopes, differences=unreadable)
        self.update(stores=[store_state(self._objects, folder) for folder in store_folders(self._objects, layout)])

    def show(self, console: Console) -> None:
        """Print scopes, stores, open shards and differences."""
        account = self.account
        console.print(f"{account.location}: {account.state} in {account.seconds:.1f} s")
        if account.documents is not None:
            console.print(f"{account.documents:,} documents of the index are in the ledger of the scope now")
        _print_table(
            console, ("scope", "index", "objects", "documents", "states", "last run"), map(_scope_row, account.scopes)
        )
        _print_table(
            console,
            ("prediction store", "segments", "unused", "answers", "MiB"),
            (
                (each.folder, each.segments, each.unused_segments, each.answers, -(-each.bytes >> 20))
                for each in account.stores
            ),
        )
        shards = [item for store in account.stores for item in store.open.items()]
        _print_table(console, ("open shard (job key)", "records"), shards)
        for difference in account.differences:
            console.print(f"- {difference}", soft_wrap=True)


class ShowLedger(LedgerCommand):
    """The command `ledger show`."""

    def execute(self) -> None:
        """Describe the ledger."""
        self._describe(self._layout())
        self.update(state=DIFFERENT if self.account.differences else DONE)


class VerifyLedger(LedgerCommand):
    """The command `ledger verify`."""

    def __init__(self, location: str, samples: int, clients: ClientFactory) -> None:
        super().__init__(location, clients)
        self._samples = samples

    def execute(self) -> None:
        """Compare the ledger with store and index."""
        layout, cluster = self._layout(), self._cluster()
        self._describe(layout)
        differences = list(LedgerCheck(self._objects, layout, cluster, samples=self._samples).differences())
        self.update(differences=differences, state=DIFFERENT if differences else DONE)


class RebuildLedger(LedgerCommand):
    """The command `ledger rebuild`."""

    def __init__(
        self, location: str, scope: str | None, index: str | None, clients: ClientFactory, *, predictions: bool
    ) -> None:
        super().__init__(location, clients)
        self._scope = scope
        self._index = index
        self._predictions = predictions

    def execute(self) -> None:
        """Make the ledger of a scope again, or the head of the store."""
        layout = self._layout()
        if self._predictions:
            self.update(differences=rebuild_stores(self._objects, layout))
        else:
            scope, index = self._chosen(layout)
            cluster = self._cluster()
            self.update(documents=rebuild_scope(self._objects, layout, cluster, scope=scope, index=index))
        lost = self.account.differences
        self._describe(layout)
        self.update(state=DONE, differences=[*lost, *self.account.differences])

    def _chosen(self, layout: Layout) -> tuple[str, str]:
        heads, _ = read_heads(self._objects, layout)
        names = {
            item.uri.removeprefix(layout.scopes()).partition("/")[0] for item in self._objects.list(layout.scopes())
        }
        if self._scope is None and len(names) != 1:
            raise ConfigError(
                f"{layout.scopes()}: {len(names)} scopes; choose one of them with --scope: {sorted(names)}"
            )
        scope = self._scope or names.pop()
        index = self._index or (heads[scope].index if scope in heads else "")
        if not index:
            raise ConfigError(f"scope {scope}: its head does not name the index; give --index")
        return scope, index


@ledger.command("show")
@typer_command
def show_ledger(*, location: Location, clients: ClientFactory) -> Command[LedgerAccount]:
    """Show scopes, objects, states, segments and open shards.

    Example: opensearch-batch ledger show s3://bucket/work/books
    """
    return ShowLedger(location, clients)


@ledger.command("verify")
@typer_command
def verify_ledger(
    *,
    location: Location,
    samples: Annotated[int, typer.Option(help="Documents of a scope, and segments of a store, to compare.")] = SAMPLES,
    clients: ClientFactory,
) -> Command[LedgerAccount]:
    """Compare the ledger with the prediction store and the index; name the differences.

    Example: opensearch-batch ledger verify s3://bucket/work/books --opensearch-url http://127.0.0.1:9200
    """
    return VerifyLedger(location, samples, clients)


@ledger.command("rebuild")
@typer_command
def rebuild_ledger(
    *,
    location: Location,
    scope: Annotated[str | None, typer.Option(help="Scope to make again, as `show` names it.")] = None,
    index: Annotated[str | None, typer.Option(help="Index of the pipeline, if the head is lost.")] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Make the head of the prediction store again instead.")
    ] = False,
    clients: ClientFactory,
) -> Command[LedgerAccount]:
    """Make the ledger of a scope again from its index.

    The next run compares the source with it, writes all documents from the prediction store, and pays for none of them.
    No run of the pipeline may be in progress.

    Example: opensearch-batch ledger rebuild s3://bucket/work/books --opensearch-url http://127.0.0.1:9200
    """
    return RebuildLedger(location, scope, index, clients, predictions=predictions)


def _scope_row(each: ScopeState) -> Sequence[object]:
    states = ", ".join(f"{count:,} {state}" for state, count in each.states.items())
    run = each.run if each.is_committed else f"{each.run} (not committed)"
    return each.scope, each.index, each.objects, each.documents, states, run


def _print_table(console: Console, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row))
    if table.row_count:
        console.print(table)
