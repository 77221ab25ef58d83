"""`python -m include.local_stack up|down|status|prerequisites`. An error is one readable message, never a traceback."""

from __future__ import annotations

import argparse
import os
import sys
import time

from include.local_stack import prerequisites, stack
from include.local_stack.settings import (
    SERVICES,
    StackError,
    home_from_environment,
    options_from_environment,
)
from include.local_stack.state import CREDENTIALS_FILE


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    home = home_from_environment(os.environ)
    try:
        if options.command == "up":
            return _up(options.services.split(","))
        if options.command == "down":
            stack.down(home)
            return 0
        if options.command == "status":
            return 0 if stack.status(home) else 1
        return _prerequisites()
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _prerequisites() -> int:
    if not prerequisites.install(stack.say_on_stdout):
        return 1
    stack.say_on_stdout("java and mvn are here")
    return 0


def _up(services: list[str]) -> int:
    began = time.monotonic()
    running = stack.Stack.up(options_from_environment(os.environ, services=services))
    stack.say_on_stdout(f"up after {time.monotonic() - began:.1f} s; addresses in {running.home / 'stack.json'}")
    if running.addresses.airflow:
        secrets_file = running.home / "airflow" / "passwords.json"
        stack.say_on_stdout(f"Airflow: user admin, password in {secrets_file}")
    if running.addresses.ca_certs:
        where = f"passwords in {running.home / CREDENTIALS_FILE}, authority in {running.addresses.ca_certs}"
        stack.say_on_stdout(f"OpenSearch: users admin and worker, {where}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.local_stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what does not run yet")
    up.add_argument("--services", default=",".join(SERVICES), help="a subset, comma-separated (default: all)")
    commands.add_parser("down", help="end all of it and remove its state; downloads stay in the cache")
    commands.add_parser("status", help="say what runs")
    commands.add_parser("prerequisites", help="install java and mvn with apt-get, or say how")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
