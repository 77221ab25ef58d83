"""JSON bodies that a pipeline file names: connectors and index bodies, the user's own and those of this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opensearch_batch.core.errors import ConfigError, did_you_mean

# Option of a pipeline file -> folder of the files that it names.
FOLDERS = {"connector": "connectors", "index_body": "indexes"}
PACKAGE = Path(__file__).resolve().parents[2]


def packaged_body(option: str, name: str) -> dict[str, Any]:
    """Return the body of this name that the package ships; `option` is `connector` or `index_body`.

    Raise ConfigError if the package has none of this name.
    """
    return read_body(option, name, PACKAGE)


def read_body(option: str, name: str, *folders: Path) -> dict[str, Any]:
    """Return the body of this name from the first folder that has it, in `connectors/` or `indexes/` below it.

    Raise ConfigError if there is none, or if it is not valid JSON.
    """
    files = [folder / FOLDERS[option] / f"{name}.json" for folder in folders]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        known = sorted({file.stem for each in files for file in each.parent.glob("*.json")})
        raise ConfigError(f"no file {files[0]}; known: {', '.join(known)}.{did_you_mean(name, known)}")
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno} is not valid JSON: {error.msg}") from error
    return body
