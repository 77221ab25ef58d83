"""Real processes for these tests: an S3 server, the services' app and their worker, with two ways to call them."""

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import cohere
import openai
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from tests.waiting import WAIT_S, eventually

REPOSITORY = Path(__file__).parents[3]
ACCESS_KEY = "AKIDLOCALSTACKTEST"
SECRET_KEY = "a secret only for tests on loopback"
MODEL_NAME = "all-MiniLM-L6-v2"
BUCKET = "batch"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether something serves at this URL."""
    try:
        return requests.get(url, timeout=WAIT_S).status_code < 500
    except requests.ConnectionError:
        return False


def start_python(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a module as its own process, with the key pair of these tests."""
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    command = [sys.executable, "-m", module, *arguments]
    # By argument list, never through a shell.
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process the hard way."""
    process.kill()
    process.wait()


@dataclass
class Stand:
    """The running processes and what tests ask of them."""

    s3_url: str
    app_url: str
    state_dir: Path
    model_dir: Path
    worker: subprocess.Popen[bytes] | None = None
    s3: Any = field(init=False)

    def __post_init__(self) -> None:
        self.s3 = self.client("s3", endpoint_url=self.s3_url)

    def client(  # boto3 makes the methods of its clients at run time
        self, service: str, *, secret: str = SECRET_KEY, endpoint_url: str | None = None
    ) -> Any:
        """A boto3 client that does not retry."""
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=endpoint_url or self.app_url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def post_signed(
        self, path: str, body: str, *, host: str = "api.sagemaker.us-east-1.amazonaws.com"
    ) -> requests.Response:
        """A request as ML Commons' connector sends it: production host, operation in the path."""
        return self.signed("POST", path, body, host=host, service="sagemaker")

    def signed(self, method: str, path: str, body: str, *, host: str, service: str) -> requests.Response:
        """A request to a production host, signed for a service; the path goes out as it is given here."""
        signed = AWSRequest(method, f"https://{host}{path}", data=body.encode())
        signed.headers["content-type"] = "application/json"
        signed.headers["host"] = host
        SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, "us-east-1").add_auth(signed)
        headers = dict(signed.headers.items())
        url = f"{self.app_url}{path}"
        return requests.request(method, url, data=body.encode(), headers=headers, timeout=WAIT_S)

    def openai(self, *, key: str = SECRET_KEY) -> openai.OpenAI:
        """An `openai` client that does not retry; the caller closes it."""
        return openai.OpenAI(api_key=key, base_url=f"{self.app_url}/v1", max_retries=0)

    def cohere(self, *, key: str = SECRET_KEY) -> cohere.Client:
        """A `cohere` client; the caller closes it."""
        return cohere.Client(api_key=key, base_url=self.app_url)

    def bearer(self, method: str, path: str, *, host: str = "", key: str = SECRET_KEY) -> requests.Response:
        """A request as ML Commons' connector sends it without a body, by default to loopback."""
        headers = {"Authorization": f"Bearer {key}", **({"host": host} if host else {})}
        return requests.request(method, f"{self.app_url}{path}", headers=headers, timeout=WAIT_S)

    def fault(self, fault: str, *, service: str = "sagemaker", **members: object) -> None:
        """Let something go wrong."""
        body = {"service": service, "fault": fault, **members}
        requests.post(f"{self.app_url}/faults", json=body, timeout=WAIT_S).raise_for_status()

    def end_delays(self) -> None:
        """Let what was delayed go on now."""
        requests.delete(f"{self.app_url}/delays", timeout=WAIT_S).raise_for_status()

    def quotas(self, **quotas: int) -> None:
        """Set limits of the services; those not named are production's."""
        requests.put(f"{self.app_url}/quotas", json=quotas, timeout=WAIT_S).raise_for_status()

    def job_count(self, service: str = "sagemaker") -> int:
        """Jobs of a service ever accepted."""
        counts: dict[str, int] = requests.get(f"{self.app_url}/jobs/count", timeout=WAIT_S).json()
        return counts[service]

    def text_count(self, service: str = "sagemaker") -> int:
        """Texts that ended jobs of a service computed."""
        counts: dict[str, int] = requests.get(f"{self.app_url}/texts/count", timeout=WAIT_S).json()
        return counts[service]

    def put_lines(self, key: str, lines: Iterable[str]) -> None:
        """Store an object of lines."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body="".join(f"{line}\n" for line in lines).encode())

    def read(self, key: str) -> str:
        """The text of an object."""
        content: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content.decode()

    def keys(self, prefix: str) -> list[str]:
        """The keys below a prefix."""
        listing = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for found in listing.get("Contents", [])]

    def wait(self, name: str, *, leaves: tuple[str, ...] = ("InProgress", "Stopping")) -> dict[str, Any]:
        """The job's description once it has left these statuses."""
        client = self.client("sagemaker")

        def status() -> str:
            return str(client.describe_transform_job(TransformJobName=name)["TransformJobStatus"])

        eventually(lambda: status() not in leaves, f"job {name} leaves {leaves}")
        described: dict[str, Any] = client.describe_transform_job(TransformJobName=name)
        return described

    def start_worker(self) -> None:
        """Start the worker."""
        arguments = ["--state", str(self.state_dir), "--s3-endpoint", self.s3_url, "--model", str(self.model_dir)]
        self.worker = start_python("include.local_stack.ai_services.worker", *arguments)

    def kill_worker(self) -> None:
        """Kill the worker in the middle of whatever it does."""
        assert self.worker is not None
        kill(self.worker)
        self.worker = None


def new_name(stem: str = "job") -> str:
    """A job name or folder nobody used before."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def request(name: str, source: str, output: str, **changes: object) -> dict[str, Any]:
    """A CreateTransformJob body as OpenSearch's documentation shows it."""
    body: dict[str, Any] = {
        "TransformJobName": name,
        "ModelName": MODEL_NAME,
        "BatchStrategy": "SingleRecord",
        "MaxConcurrentTransforms": 2,
        "DataProcessing": {"InputFilter": "$.text", "JoinSource": "Input", "OutputFilter": "$"},
        "TransformInput": {
            "ContentType": "application/json",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{source}"}},
            "SplitType": "Line",
        },
        "TransformOutput": {
            "AssembleWith": "Line",
            "Accept": "application/json",
            "S3OutputPath": f"s3://{BUCKET}/{output}",
        },
        "TransformResources": {"InstanceCount": 1, "InstanceType": "ml.c5.xlarge"},
    }
    return {**body, **changes}


def as_ml_commons_template(body: Mapping[str, Any]) -> str:
    """The body as the connector's request_body template gives it: spaces, another key order."""
    return json.dumps(dict(sorted(body.items())), indent=1)
