"""Runs a command: prints one account, at most one line about an error, and returns one exit code."""

from __future__ import annotations

import inspect
import sys
import time
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.secrets import Secrets
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.types.counts import DONE, DONE_WITH_DEAD_LETTERS

REFUSED, FAILED, DRY_RUN, DIFFERENT = "REFUSED", "FAILED", "DRY_RUN", "DIFFERENT"
EXIT_CODES = {DONE: 0, DRY_RUN: 0, DONE_WITH_DEAD_LETTERS: 1, DIFFERENT: 1, REFUSED: 2, FAILED: 3}
INTERRUPTED = 130
FILE_WIDTH = 1_000


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a command; `error` is set if `state` is REFUSED or FAILED."""

    state: str = FAILED
    seconds: float = 0.0
    error: str | msgspec.UnsetType = msgspec.UNSET


A = TypeVar("A", bound=Account)


class Command(Generic[A]):
    """Base of the commands. `account` is the result so far, so that an error does not lose it.

    The arguments of a subclass are the options of the command, and its docstring is the help text. Subclasses define
    `execute` and `show`, and may define `when_stopped`, the advice in the message after Ctrl-C.
    """

    when_stopped = "run the same command again"

    def __init__(self, account: A) -> None:
        self.account = account
        self.secrets = Secrets()

    def execute(self) -> None:
        """Execute the command and set the account."""
        raise NotImplementedError

    def show(self, console: Console) -> None:
        """Print the account as text."""
        raise NotImplementedError

    def update(self, **members: Any) -> None:  # noqa: ANN401 - members of the account
        """Update members of the account."""
        self.account = msgspec.structs.replace(self.account, **members)


class Output(msgspec.Struct, frozen=True):
    """Options of every command."""

    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel="Output")
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.", rich_help_panel="Output")
    ] = False


def typer_command(make: Callable[..., Command[Any]]) -> Callable[..., int]:
    """Return a function for typer that runs the command that `make`, a class or a function, returns.

    A parameter of `make` whose type is a struct becomes one option for each field; the options of `Output` are added.
    """
    signature = inspect.signature(make, eval_str=True)
    output_parameter = inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, annotation=Output)
    parameters = [*signature.parameters.values(), output_parameter]
    groups = {
        parameter.name: parameter.annotation
        for parameter in parameters
        if isinstance(parameter.annotation, type(Output))
    }

    def run_command(**values: Any) -> int:  # noqa: ANN401 - values of any option
        for name, group in groups.items():
            values[name] = group(**{field: values.pop(field) for field in group.__struct_fields__})
        output = values.pop("output")
        return run(make(**values), output)

    options = [option for parameter in parameters for option in _options_of(parameter, groups.get(parameter.name))]
    run_command.__name__, run_command.__doc__ = make.__name__, make.__doc__
    run_command.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined] # read by typer
    return run_command


def _options_of(parameter: inspect.Parameter, group: type[msgspec.Struct] | None) -> list[inspect.Parameter]:
    if group is None:
        return [parameter]
    hints, fields = get_type_hints(group, include_extras=True), msgspec.structs.fields(group)
    return [parameter.replace(name=each.name, default=each.default, annotation=hints[each.name]) for each in fields]


def run(command: Command[Any], output: Output) -> int:
    """Run a command, print its account and return its exit code."""
    began_at, code = time.monotonic(), None
    try:
        command.execute()
    except KeyboardInterrupt:
        code = INTERRUPTED
        command.update(state=FAILED, error=f"stopped: {command.when_stopped}")
    except Exception as error:  # noqa: BLE001 - any error is printed in the account
        state = REFUSED if isinstance(error, ConfigError) else FAILED
        command.update(state=state, error=command.secrets.hide(_one_line(error)))
        if output.debug:
            sys.stderr.write(command.secrets.hide(traceback.format_exc()))
    command.update(seconds=round(time.monotonic() - began_at, 3))
    _print(command, as_json=output.as_json)
    return EXIT_CODES[command.account.state] if code is None else code


def usage_error(message: str, account: type[Account], *, as_json: bool, hint: str) -> int:
    """Print the account of a command with invalid arguments and return its exit code."""
    message = f"{message.rstrip('.')}; see {hint} --help"
    if as_json:
        _write_json(account(state=REFUSED, error=message))
    else:
        sys.stderr.write(f"refused: {message}\n")
    return EXIT_CODES[REFUSED]


def _print(command: Command[Any], *, as_json: bool) -> None:
    account = command.account
    if as_json:
        _write_json(account)
    elif account.error is not msgspec.UNSET:
        sys.stderr.write(f"{account.state.lower()}: {account.error}\n")
    else:
        # Tables in a file or a pipe are as wide as they need to be.
        width = None if sys.stdout.isatty() else FILE_WIDTH
        command.show(Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width))


def _write_json(account: Account) -> None:
    sys.stdout.write(msgspec.json.encode(account).decode() + "\n")


def _one_line(error: Exception) -> str:
    """Return the text of an error on one line, with its type if the error is not one of this package."""
    text = " ".join(str(error).split())
    return text if type(error).__module__.startswith("opensearch_batch.") else f"{type(error).__name__}: {text}"
