"""The wheel in an Airflow that knows nothing of this repository: what it contains, what Airflow finds, one run."""

from __future__ import annotations

import json
import re
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.distribution.installed import CONSTRAINTS, ROOT, Installed, build_wheel
from tests.lab import MODEL, Lab

pytestmark = pytest.mark.slow
PACKAGE = ROOT / "plugins" / "opensearch_batch"
DISTRIBUTION = "airflow-provider-opensearch-batch"
GUIDE = ROOT / "docs" / "how_to" / "install_into_your_airflow.md"
RECORDS = 40


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=CONSTRAINTS)
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a fresh environment, with the versions that a user has."""
    return Installed(tmp_path_factory.mktemp(request.param), wheel, CONSTRAINTS[request.param])


def dag_files(location: str) -> dict[str, str]:
    """Return the DAG files of the guide, for a location of pipeline files."""
    blocks = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return {Path(name).name: code.replace("s3://my-bucket/opensearch/", location) for name, code in blocks}


def test_the_wheel_contains_the_package_and_no_more(wheel: Path) -> None:
    """Every file of the package, and the plugin; no test, no DAG file, nothing of the local stack."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    expected = {str(path.relative_to(PACKAGE.parent)) for path in files}
    assert names == expected | {"opensearch_batch_plugin.py"}
    assert {"opensearch_batch/connectors/openai.json", "opensearch_batch/indexes/passages.json"} <= names


def test_airflow_finds_the_provider_the_plugin_and_the_command(installed: Installed) -> None:
    """By entry points, so that nothing is copied into Airflow's folders."""
    providers = {each["package_name"]: each["version"] for each in installed.listed("providers", "list")}
    assert providers[DISTRIBUTION].startswith("0.")
    (plugin,) = [each for each in installed.listed("plugins") if each["name"] == "opensearch_batch"]
    assert DISTRIBUTION in plugin["source"]
    assert "status" in installed.run("opensearch-batch", "--help")


@pytest.mark.distributed
def test_a_pipeline_in_s3_runs(installed: Installed, lab: Lab, index: str) -> None:
    """The two DAG files of the guide show its DAG and the mistake of another file; a second run pays nothing."""
    name, bucket = f"books-{uuid.uuid4().hex[:8]}", lab.new_bucket()
    installed.settings.update(connections(lab))
    put_pipelines(lab, bucket, name, index)
    files = dag_files(f"s3://{bucket}/opensearch/")
    assert len(files) == 3
    for file, code in files.items():
        (installed.home / "dags" / file).write_text(code)
    installed.airflow("db", "migrate")
    installed.airflow("dags", "reserialize")
    dag_ids = {each["dag_id"] for each in installed.listed("dags", "list")}
    assert dag_ids == {name, "batch_ingestion", "replay"}
    (error,) = installed.listed("dags", "list-import-errors")
    assert f"s3://{bucket}/opensearch/pipelines/torn.yaml:2 not valid YAML" in json.dumps(error)
    before = lab.jobs()
    for _ in range(2):
        installed.airflow("dags", "test", name)
        documents = lab.documents(index)
        assert sorted(documents) == sorted(str(number) for number in range(RECORDS))
        assert (lab.jobs() - before, lab.writes(index)) == (1, RECORDS)
    assert documents["7"]["embedding"] == pytest.approx(lab.vector("text 7"), abs=1e-6)


def connections(lab: Lab) -> dict[str, str]:
    """Return the connections of the local stack as environment variables."""
    addresses, keys = lab.stack.addresses, lab.stack.credentials
    host, port = addresses.opensearch.removeprefix("http://").split(":")
    services = {name: {"endpoint_url": addresses.ai_services} for name in ("sagemaker", "sagemaker-runtime")}
    extra = {"region_name": "us-east-1", "service_config": {"s3": {"endpoint_url": addresses.s3}, **services}}
    aws = {"conn_type": "aws", "login": keys.access_key, "password": keys.secret_key, "extra": extra}
    node = {"conn_type": "opensearch", "host": host, "port": int(port), "extra": {"use_ssl": False}}
    return {"AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws), "AIRFLOW_CONN_OPENSEARCH_DEFAULT": json.dumps(node)}


def put_pipelines(lab: Lab, bucket: str, name: str, index: str) -> None:
    """Upload a pipeline with its documents and its index body, and a file with a mistake."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / "include" / "pipelines" / "passages.yaml").read_text())
    spec |= {"source": {"uri": f"s3://{bucket}/documents/"}, "work_prefix": f"s3://{bucket}/work", "tests": []}
    field_map = {"text": "$.text", "embedding": "prediction"}
    spec |= {"id": "$.id", "ingest": {"index": index, "index_body": "own", "field_map": field_map}}
    vector = {"type": "knn_vector", "dimension": 384}
    body = {"settings": {"index.knn": True}, "mappings": {"properties": {"embedding": vector}}}
    rows = [json.dumps({"id": str(number), "text": f"text {number}"}) for number in range(RECORDS)]
    for key, content in (
        (f"opensearch/pipelines/{name}.yaml", yaml.safe_dump(spec)),
        ("opensearch/pipelines/torn.yaml", "source: {"),
        ("opensearch/indexes/own.json", json.dumps(body)),
        ("documents/a.jsonl", "\n".join(rows)),
    ):
        lab.s3.put_object(Bucket=bucket, Key=key, Body=content.encode())
    lab.sagemaker_model(MODEL)
