"""Airflow executes each file of plugins/ under its bare name, so it must find only the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow._shared.module_loading.file_discovery import find_path_from_directory

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
@pytest.mark.parametrize("syntax", ["glob", "regexp"])
def test_airflow_executes_the_plugin_alone(syntax: str) -> None:
    """A module of the package with the name of a standard module would replace it in every process of Airflow."""
    found = [Path(path) for path in find_path_from_directory(str(PLUGINS), ".airflowignore", syntax)]
    assert [path.name for path in found if path.suffix == ".py"] == ["opensearch_batch_plugin.py"]
