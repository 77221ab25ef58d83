"""No key and no password stands in anything the command line says or leaves behind, however it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from include.local_stack.certificates import Authority, certificate_pem
from tests.command_line import SAMPLES, account, command, on_terminal, write_request
from tests.lab import Lab
from tests.security.secured import INGEST_ROLE, Secured, User

SECRET = "s3cr3t-of-the-tests"
AWAY = "http://127.0.0.1:1"
KEYS = {"access_key": "an-id", "secret_key": SECRET, "region": "us-east-1", "session_token": "us-east-1"}


@pytest.fixture(scope="module")
def worker(secured: Secured) -> User:
    """A user with the documented role for ingest."""
    return secured.user(INGEST_ROLE)


@pytest.mark.slow
def test_the_documented_request_with_its_keys(lab: Lab, bucket: str, index: str, tmp_path: Path) -> None:
    """S3 keys in the request, the region in the token's place, as 2.19 wants it; progress lies in the bucket."""
    keys = lab.stack.credentials
    request = json.loads((SAMPLES / "sagemaker.json").read_text())
    lab.s3.upload_file(str(SAMPLES / "sagemaker_batch.json.out"), bucket, "output/sagemaker_batch.json.out")
    request["index_name"] = index
    request["data_source"] = {"type": "s3", "source": [f"s3://{bucket}/output/sagemaker_batch.json.out"]}
    request["credential"] = {**KEYS, "access_key": keys.access_key, "secret_key": keys.secret_key}
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request))
    urls = ("--opensearch-url", lab.stack.addresses.opensearch, "--s3-endpoint", lab.stack.addresses.s3)
    done = command("ingest", str(file), *urls, "--json")
    again = command("ingest", str(file), *urls)
    told = account(done.stdout)
    assert (done.returncode, told["state"], told["read"], told["indexed"]) == (0, "DONE", 2, 2), done.stderr
    assert lab.node("GET", f"{index}/_count")["count"] == 2
    assert [line.split() for line in again.stdout.splitlines()[1:4]] == [
        ["read", "2"],
        ["indexed", "0"],
        ["unchanged", "2"],
    ]
    left = [item["Key"] for item in lab.s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert [key for key in left if not key.startswith("_opensearch_batch/")] == ["output/sagemaker_batch.json.out"]
    kept = b"".join(lab.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in left)
    said = done.stdout + done.stderr + again.stdout + again.stderr
    assert keys.secret_key not in said + kept.decode()


@pytest.mark.parametrize(
    ("data_source", "options", "ending"),
    [
        ({"type": "s3", "source": ["s3://bucket/k"]}, ["--s3-endpoint", AWAY], (3, f"S3 at {AWAY} does not answer")),
        pytest.param(
            {"type": "s3", "source": ["s3://no-such-bucket/k"]},
            ["--s3-endpoint", "{s3}"],
            (2, "there is no bucket"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"type": "local", "source": ["rows.jsonl"]},
            ["--opensearch-url", AWAY],
            (3, f"{AWAY} does not answer"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"type": "openAI", "source": ["file-a"]},
            ["--openai-base-url", f"{AWAY}/v1"],
            (3, "OpenAI does not answer"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"type": "openAI", "source": ["file-a"]},
            ["--openai-base-url", "{ai}/v1"],
            (2, "OpenAI refuses the key"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_no_failure_tells_a_key(
    lab: Lab, tmp_path: Path, data_source: dict[str, Any], options: list[str], ending: tuple[int, str]
) -> None:
    """Not in the line for people, not in the JSON, not in the traceback."""
    code, message = ending
    (tmp_path / "rows.jsonl").write_text('{"id":1,"t":"a"}\n')
    credential = {"openAI_key": SECRET} if data_source["type"] == "openAI" else KEYS
    file = write_request(tmp_path, "never-made", data_source=data_source, credential=credential)
    addresses = lab.stack.addresses
    given = [option.format(s3=addresses.s3, ai=addresses.ai_services) for option in options]
    url = [] if "--opensearch-url" in given else ["--opensearch-url", addresses.opensearch]
    plain = command("ingest", str(file), *url, *given)
    assert (plain.returncode, plain.stdout, len(plain.stderr.splitlines())) == (code, "", 1)
    assert message in plain.stderr
    full = command("ingest", str(file), *url, *given, "--json", "--debug", OPENSEARCH_PASSWORD=SECRET)
    assert (full.returncode, account(full.stdout)["state"]) == (code, {2: "REFUSED", 3: "FAILED"}[code])
    assert message in account(full.stdout)["error"]
    assert full.stderr.startswith("Traceback")
    assert SECRET not in plain.stderr + full.stdout + full.stderr


@pytest.mark.parametrize("option", ["--opensearch-url", "--s3-endpoint", "--openai-base-url"])
@pytest.mark.parametrize(
    "url", [f"http://me:{SECRET}@h:1", f"me:{SECRET}@h:1", f"http://me:1/{SECRET}@h:1", f"//{SECRET}@h"]
)
def test_a_url_with_a_password_is_refused_unseen(tmp_path: Path, option: str, url: str) -> None:
    """However it is written, and for whichever server: the message names the way that no list of processes shows."""
    (tmp_path / "rows.jsonl").write_text('{"id":1,"t":"a"}\n')
    file = write_request(tmp_path, "never-made")
    other = [] if option == "--opensearch-url" else ["--opensearch-url", AWAY]
    done = command("ingest", str(file), *other, option, url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"refused: {option}: the URL contains a user or password")
    assert " in the environment" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.slow
def test_an_openai_key_of_the_environment(lab: Lab, index: str, tmp_path: Path) -> None:
    """Where the request brings none; where nobody has one, the message says where to put it."""
    key, base = lab.stack.credentials.secret_key, f"{lab.stack.addresses.ai_services}/v1"
    with openai.OpenAI(api_key=key, base_url=base) as client:
        name = client.files.create(file=("a.jsonl", b'{"id":1,"t":"a"}\n'), purpose="batch").id
    file = write_request(tmp_path, index, data_source={"type": "openAI", "source": [name]})
    urls = ("--opensearch-url", lab.stack.addresses.opensearch, "--openai-base-url", base)
    done = command("ingest", str(file), *urls, "--json", cwd=tmp_path, OPENAI_API_KEY=key)
    assert (done.returncode, account(done.stdout)["indexed"]) == (0, 1), done.stderr
    assert key not in done.stdout + done.stderr
    assert (tmp_path / ".opensearch_batch").is_dir()
    keyless = command("ingest", str(file), *urls, cwd=tmp_path)
    assert keyless.returncode == 2
    assert "give credential.openAI_key in the request, or set OPENAI_API_KEY" in keyless.stderr


def test_a_password_is_typed_or_stands_in_the_environment(secured: Secured, worker: User, tmp_path: Path) -> None:
    """Over TLS with the authority's file; what is typed is not shown."""
    (tmp_path / "rows.jsonl").write_text('{"id":1,"t":"a"}\n')
    file = write_request(tmp_path, "passages-of-the-command-line")
    connection = _connection(secured, worker)
    code, seen = on_terminal("ingest", str(file), *connection, typed={"Password of": worker.password})
    assert code == 0, seen
    assert worker.password not in seen
    done = command("ingest", str(file), *connection, "--json", OPENSEARCH_PASSWORD=worker.password)
    assert (done.returncode, account(done.stdout)["unchanged"]) == (0, 1)
    assert worker.password not in done.stdout + done.stderr
    secured.admin("DELETE", "passages-of-the-command-line")


@pytest.mark.slow
def test_a_wrong_password_and_an_unknown_authority_are_refused(secured: Secured, worker: User, tmp_path: Path) -> None:
    """Each by its name; without verification the password still counts."""
    (tmp_path / "rows.jsonl").write_text('{"id":1,"t":"a"}\n')
    file = write_request(tmp_path, "passages-of-nobody")
    wrong = command("ingest", str(file), *_connection(secured, worker), "--debug", OPENSEARCH_PASSWORD=SECRET)
    assert (wrong.returncode, SECRET in wrong.stderr) == (2, False)
    assert "wrong user or password (401)" in wrong.stderr
    (tmp_path / "ca.pem").write_bytes(certificate_pem(Authority().certificate))
    foreign = [*_connection(secured, worker)[:-1], str(tmp_path / "ca.pem")]
    unknown = command("ingest", str(file), *foreign, OPENSEARCH_PASSWORD=worker.password)
    assert (unknown.returncode, worker.password in unknown.stderr) == (2, False)
    assert "its certificate is not trusted" in unknown.stderr
    insecure = [*_connection(secured, worker)[:-2], "--insecure"]
    trusted = command("ingest", str(file), *insecure, "--dry-run", OPENSEARCH_PASSWORD=worker.password)
    assert (trusted.returncode, trusted.stderr) == (0, "")


def _connection(secured: Secured, user: User) -> list[str]:
    addresses = secured.stack.addresses
    return ["--opensearch-url", addresses.opensearch, "--user", user.name, "--ca-certs", addresses.ca_certs]
