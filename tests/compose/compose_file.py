"""docker-compose.yaml as Docker Compose resolves it, with the secrets of a new `.env`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yaml"
# What is ours runs in the image that this project builds.
OUR_IMAGE = "opensearch-batch:local"
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::\?[^}]*)?\})")


def new_secrets(folder: Path) -> dict[str, str]:
    """Return the variables that `python3 -m include.compose` writes into a folder."""
    # Without site-packages: a user runs it with any Python.
    command = [sys.executable, "-S", "-m", "include.compose"]
    subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)  # noqa: S603 - our own program
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def compose_services(secrets: Mapping[str, str]) -> dict[str, Any]:
    """Return the services of the file, with its variables replaced."""

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [resolved(each) for each in value]
        if not isinstance(value, str):
            return value
        return _VARIABLE.sub(lambda found: secrets[found["name"]] if found["name"] else "$", value)

    services: dict[str, Any] = resolved(yaml.safe_load(FILE.read_text())["services"])
    return services


def check_command(service: Mapping[str, Any]) -> list[str]:
    """Return the command of a service's health check."""
    kind, *command = service["healthcheck"]["test"]
    return command if kind == "CMD" else ["/bin/sh", "-c", *command]
