"""One set of processes for all tests of this folder."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from include.local_stack.ai_services.model import MiniLM, fetch
from tests.local_stack.ai_services.stand import (
    BUCKET,
    MODEL_NAME,
    REPOSITORY,
    Stand,
    answers,
    free_port,
    kill,
    start_python,
)
from tests.waiting import WAIT_S, eventually


@pytest.fixture(scope="session")
def ai_model_dir() -> Path:
    """The model's folder, kept between runs."""
    return fetch(REPOSITORY / ".cache" / "model")


@pytest.fixture(scope="session")
def ai_model(ai_model_dir: Path) -> MiniLM:
    """The model itself, to compare with."""
    return MiniLM(ai_model_dir)


@pytest.fixture(scope="session")
def ai_running(ai_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """S3, app and worker, each a process of its own."""
    s3_port, app_port = free_port(), free_port()
    s3_url, app_url = f"http://127.0.0.1:{s3_port}", f"http://127.0.0.1:{app_port}"
    stand = Stand(s3_url, app_url, tmp_path_factory.mktemp("state"), ai_model_dir)
    options = ["--state", str(stand.state_dir), "--s3-endpoint", s3_url, "--model", str(ai_model_dir)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(start_python("include.local_stack.s3_server", "--port", str(s3_port)))
        processes.append(start_python("include.local_stack.ai_services", "--port", str(app_port), *options))
        stand.start_worker()
        eventually(lambda: answers(s3_url), "S3 answers")
        eventually(lambda: answers(f"{app_url}/health"), "the app answers")
        stand.s3.create_bucket(Bucket=BUCKET)
        stand.client("sagemaker").create_model(ModelName=MODEL_NAME, PrimaryContainer={"Image": "djl"})
        yield stand
    finally:
        if stand.worker:
            stand.kill_worker()
        for process in processes:
            kill(process)


@pytest.fixture
def ai_stand(ai_running: Stand) -> Iterator[Stand]:
    """The running processes, without faults or quotas left by a test."""
    yield ai_running
    requests.delete(f"{ai_running.app_url}/faults", timeout=WAIT_S).raise_for_status()
    ai_running.quotas()
