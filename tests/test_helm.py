"""The values for Airflow's Helm chart: secrets are those of the page, and options are Airflow's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import retrieve_configuration_description

ROOT = Path(__file__).resolve().parent.parent
HELM, PAGE = ROOT / "include" / "helm", ROOT / "docs" / "how_to" / "kubernetes.md"
KUBERNETES, CELERY = "values.yaml", "celery.yaml"
# The key of each secret that the chart reads, by the option with its name.
KEYS = {
    "jwtSecretName": "jwt-secret",
    "apiSecretKeySecretName": "api-secret-key",
    "fernetKeySecretName": "fernet-key",
    "metadataSecretName": "connection",
    "brokerUrlSecretName": "connection",
}


def values(name: str) -> dict[str, Any]:
    """Return the values of a file."""
    found: dict[str, Any] = yaml.safe_load((HELM / name).read_text())
    return found


def created() -> dict[str, set[str]]:
    """Return the secrets that the commands of the page create, with their keys."""
    lines = re.findall(r"create secret generic (\S+) (.+)", PAGE.read_text())
    return {name: set(re.findall(r"--from-(?:literal|file)=([\w-]+)=", arguments)) for name, arguments in lines}


def test_every_secret_is_pinned_and_created_by_the_page() -> None:
    """With the key that the chart reads; no value is a secret."""
    both = {**values(KUBERNETES), **values(KUBERNETES)["data"], **values(CELERY)["data"]}
    assert {both[option]: {key} for option, key in KEYS.items()}.items() <= created().items()
    connections = values(KUBERNETES)["secret"]
    assert {each["envName"].removeprefix("AIRFLOW_CONN_").removesuffix("_DEFAULT").lower() for each in connections} == {
        each["secretKey"] for each in connections
    }
    assert {each["secretKey"] for each in connections} == created()["opensearch-batch-connections"]
    assert created().keys() == {both[option] for option in KEYS} | {each["secretName"] for each in connections}
    assert not {"jwtSecret", "apiSecretKey", "fernetKey"} & both.keys()


def test_the_connections_of_the_page_are_valid() -> None:
    """Each has a type that the package accepts, and no password without TLS."""
    found = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)]
    assert [each["conn_type"] for each in found] == ["opensearch", "aws", "http"]
    assert found[0]["extra"]["use_ssl"] is True


@pytest.mark.parametrize("name", [KUBERNETES, CELERY])
def test_every_option_is_one_of_airflow(name: str) -> None:
    """Airflow ignores an option that it does not know."""
    known = retrieve_configuration_description(include_providers=True)
    for section, options in values(name)["config"].items():
        for option in options:
            assert option in known[section]["options"], f"[{section}] {option}"


def test_the_page_installs_both_files_and_the_version_that_was_checked() -> None:
    """The files of the commands exist; the image has the version of the values."""
    page = PAGE.read_text()
    assert set(re.findall(r"--values (\S+)", page)) == {f"include/helm/{name}" for name in (KUBERNETES, CELERY)}
    assert f"FROM apache/airflow:{values(KUBERNETES)['airflowVersion']}-" in page
    assert {values(name)["executor"] for name in (KUBERNETES, CELERY)} == {"KubernetesExecutor", "CeleryExecutor"}
