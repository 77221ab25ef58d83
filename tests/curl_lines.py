"""The requests of documents as lines of curl: ours as they stand, OpenSearch's as the button beside them copies."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "api.md"
# As the documents of OpenSearch 2.17 have them, each with the keys that the request of its type needs.
AWS_CREDENTIAL = {
    "region": "us-east-1",
    "access_key": "<your access key>",
    "secret_key": "<your secret key>",
    "session_token": "<your session token>",
}
OPENAI_CREDENTIAL = {"openAI_key": "<you openAI key>"}


def documented_lines() -> list[str]:
    """Return the lines of the page that begin with curl."""
    return re.findall(r"^\$ (curl .*)$", PAGE.read_text(), re.MULTILINE)


def copied_line(method: str, path: str, body: Any = None) -> str:
    """Return what OpenSearch's documents copy as curl for a request."""
    line = f'curl -X{method} "http://localhost:9200{path}"'
    return line if body is None else f"{line} -H 'Content-Type: application/json' -d'\n{json.dumps(body, indent=2)}'"


def run_line(line: str, **variables: str) -> Any:
    """Run a line of curl with these shell variables; return the decoded answer."""
    command = line.replace("curl ", "curl -s --fail-with-body --noproxy '*' ", 1)
    done = subprocess.run(  # noqa: S603 - a line of our documents
        ["/bin/bash", "-c", command], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{line}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def at_airflow(line: str, url: str, user: str) -> str:
    """Return a line of OpenSearch's documents with another host and a login, and nothing else changed."""
    return line.replace("http://localhost:9200", url).replace("curl ", f"curl -u '{user}' ", 1)
