"""`python -m include.local_stack COMMAND`; `--help` lists the commands. An error is one message, never a traceback."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import boto3

from include.local_stack import prerequisites, stack
from include.local_stack.buckets import create_bucket
from include.local_stack.demo import Demo
from include.local_stack.settings import (
    SERVICES,
    StackError,
    executor_from_environment,
    home_from_environment,
    options_from_environment,
)
from include.local_stack.state import CREDENTIALS_FILE


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    home = home_from_environment(os.environ)
    commands: dict[str, Callable[[], bool]] = {
        "up": lambda: _up(options.services.split(",")),
        "down": lambda: stack.down(home) or True,
        "status": lambda: stack.status(home),
        "put": lambda: _put(options.file, options.uri),
        "run": lambda: Demo(stack.Stack.up(), options.service, dag_id=options.pipeline).run_once(),
        "prerequisites": _prerequisites,
    }
    try:
        return 0 if commands[options.command]() else 1
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _put(file: Path, uri: str) -> bool:
    """Upload a file to the stack's S3 server; create the bucket if it is missing."""
    if not file.is_file():
        raise StackError(f"{file}: no such file")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    running = stack.Stack.running()
    s3 = boto3.client(
        "s3",
        endpoint_url=running.addresses.s3,
        aws_access_key_id=running.credentials.access_key,
        aws_secret_access_key=running.credentials.secret_key,
        region_name="us-east-1",
    )
    create_bucket(s3, bucket)
    key = f"{key}{file.name}" if not key or key.endswith("/") else key
    s3.upload_file(str(file), bucket, key)
    stack.say_on_stdout(f"{file} is at s3://{bucket}/{key}")
    return True


def _prerequisites() -> bool:
    celery = executor_from_environment(os.environ) == "celery"
    find = prerequisites.missing_for_celery if celery else prerequisites.missing_for_the_stack
    if not prerequisites.install(stack.say_on_stdout, find):
        return False
    stack.say_on_stdout(f"java, mvn{', postgres and redis-server' if celery else ''} are here")
    return True


def _up(services: list[str]) -> bool:
    began = time.monotonic()
    running = stack.Stack.up(options_from_environment(os.environ, services=services))
    stack.say_on_stdout(f"up after {time.monotonic() - began:.1f} s; addresses in {running.home / 'stack.json'}")
    if running.addresses.airflow:
        secrets_file = running.home / "airflow" / "passwords.json"
        stack.say_on_stdout(f"Airflow: user admin, password in {secrets_file}")
    if running.addresses.ca_certs:
        where = f"passwords in {running.home / CREDENTIALS_FILE}, authority in {running.addresses.ca_certs}"
        stack.say_on_stdout(f"OpenSearch: users admin and worker, {where}")
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.local_stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what does not run yet")
    up.add_argument("--services", default=",".join(SERVICES), help="a subset, comma-separated (default: all)")
    commands.add_parser("down", help="end all of it and remove its state; downloads stay in the cache")
    commands.add_parser("status", help="say what runs")
    put = commands.add_parser("put", help="upload a file to the stack's S3 server")
    put.add_argument("file", type=Path)
    put.add_argument("uri", help="s3://bucket/prefix/, or an object")
    run = commands.add_parser("run", help="run the DAG of a pipeline and show its stages until it ends")
    run.add_argument("pipeline", help="the name of a file of include/pipelines/")
    run.add_argument("--service", default="openai", help="the pipeline's AI service")
    commands.add_parser("prerequisites", help="install what the system has to bring, or say how")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
