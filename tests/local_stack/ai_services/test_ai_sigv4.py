"""Signatures: what botocore signs passes, what anyone changed afterwards does not."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from include.local_stack.ai_services.aws import AwsError
from include.local_stack.ai_services.sigv4 import KeyPair, ReceivedRequest, verify

KEYS = KeyPair("AKID", "secret")
HOST = "bedrock.us-east-1.amazonaws.com"


def signed(
    *,
    path: str = "/CreateTransformJob?b=2&a=1",
    region: str = "us-east-1",
    service: str = "sagemaker",
    keys: KeyPair = KEYS,
    headers: dict[str, str] | None = None,
) -> ReceivedRequest:
    """A request signed now by botocore, as the app receives it."""
    request = AWSRequest("POST", f"https://{HOST}{path}", data=b'{"a": 1}')
    for name, value in {"host": HOST, "content-type": "application/json", **(headers or {})}.items():
        request.headers[name] = value
    SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key), service, region).add_auth(request)
    received = {name.lower(): str(value) for name, value in request.headers.items()}
    return ReceivedRequest("POST", path, received, b'{"a": 1}')


def refused(request: ReceivedRequest, *, now: datetime | None = None) -> AwsError:
    """The error of a request that must not pass."""
    with pytest.raises(AwsError, match=r"^403 ") as caught:
        verify(request, keys=KEYS, service="sagemaker", now=now or datetime.now(UTC))
    assert caught.value.status == 403
    return caught.value


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/CreateTransformJob",
        "/a?b=2&a=1",
        "/model-invocation-job/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Amodel-invocation-job%2Fabc",
    ],
)
def test_what_botocore_signs_passes(path: str) -> None:
    """Paths with escapes and queries in any order are verified as they were signed."""
    verify(signed(path=path), keys=KEYS, service="sagemaker", now=datetime.now(UTC))


def test_a_payload_hash_header_passes_when_true() -> None:
    """x-amz-content-sha256 is accepted with the hash of the body."""
    true_hash = hashlib.sha256(b'{"a": 1}').hexdigest()
    request = signed(headers={"x-amz-content-sha256": true_hash})
    verify(request, keys=KEYS, service="sagemaker", now=datetime.now(UTC))


@pytest.mark.parametrize(
    "change",
    [
        lambda request: replace(request, body=b'{"a": 2}'),
        lambda request: replace(request, method="PUT"),
        lambda request: replace(request, path_and_query="/StopTransformJob?b=2&a=1"),
        lambda request: replace(request, path_and_query="/CreateTransformJob?b=2&a=3"),
        lambda request: replace(request, headers={**request.headers, "content-type": "text/plain"}),
        lambda request: replace(request, headers={**request.headers, "host": "api.openai.com"}),
    ],
    ids=["body", "method", "path", "query", "header", "host"],
)
def test_a_changed_request_is_refused(change: Callable[[ReceivedRequest], ReceivedRequest]) -> None:
    """Every signed part of a request is covered."""
    assert refused(change(signed())).kind == "InvalidSignatureException"


def test_wrong_secret() -> None:
    """A signature made with another secret does not match."""
    error = refused(signed(keys=KeyPair("AKID", "guess")))
    assert (error.kind, "does not match" in error.message) == ("InvalidSignatureException", True)


def test_unknown_key() -> None:
    """A key nobody issued is an unrecognised client."""
    assert refused(signed(keys=KeyPair("OTHER", "secret"))).kind == "UnrecognizedClientException"


def test_no_signature() -> None:
    """A request without Authorization lacks its token; one with another scheme is incomplete."""
    assert refused(replace(signed(), headers={"host": HOST})).kind == "MissingAuthenticationTokenException"
    bearer = replace(signed(), headers={"host": HOST, "authorization": "Bearer abc"})
    assert refused(bearer).kind == "IncompleteSignatureException"


@pytest.mark.parametrize("offset", [timedelta(minutes=16), timedelta(minutes=-16)])
def test_a_signature_expires(offset: timedelta) -> None:
    """More than 15 minutes in either direction is too far."""
    assert "Signature expired" in refused(signed(), now=datetime.now(UTC) + offset).message


@pytest.mark.parametrize(("region", "service"), [("eu-west-1", "sagemaker"), ("us-east-1", "s3")])
def test_another_scope_is_refused(region: str, service: str) -> None:
    """A signature for another region or service is not for us."""
    assert "Credential should be scoped to" in refused(signed(region=region, service=service)).message


@pytest.mark.parametrize("claimed", ["UNSIGNED-PAYLOAD", "0" * 64])
def test_a_payload_is_always_signed(claimed: str) -> None:
    """UNSIGNED-PAYLOAD and a false hash are refused."""
    assert "X-Amz-Content-Sha256" in refused(signed(headers={"x-amz-content-sha256": claimed})).message


def test_host_must_be_signed() -> None:
    """A signature that leaves the host open could be used anywhere."""
    request = signed()
    authorization = request.headers["authorization"].replace(";host;", ";")
    assert (
        "host must be" in refused(replace(request, headers={**request.headers, "authorization": authorization})).message
    )
