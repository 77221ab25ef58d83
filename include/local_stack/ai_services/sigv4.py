"""Signatures are recomputed, never believed. A request passes only if AWS would let it pass.

The canonical request is botocore's own code, so that it cannot differ from what clients sign.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from fastapi import Request

from include.local_stack.ai_services.aws import REGION, AwsError

MAX_CLOCK_SKEW = timedelta(minutes=15)
TIMESTAMP_FORMAT = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<key>[^/,\s]+)/(?P<date>\d{8})/(?P<region>[^/,]+)/(?P<service>[^/,]+)"
    r"/aws4_request *, *SignedHeaders=(?P<headers>[^,\s]+) *, *Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class KeyPair:
    """The one key pair the services know."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it arrived: path and query still percent-encoded, header names in lower case."""

    method: str
    path_and_query: str
    headers: Mapping[str, str]
    body: bytes


class _ReceivedHeadersAuth(SigV4Auth):
    """Signs exactly the headers the client names; botocore would leave some out by name."""

    def headers_to_sign(self, request: Any) -> Any:  # noqa: ANN401 -- botocore's signature has no types
        return request.headers


async def received(request: Request) -> ReceivedRequest:
    """The parts of a request that a signature covers."""
    raw_path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return ReceivedRequest(
        method=request.method,
        path_and_query=(raw_path + (b"?" + query if query else b"")).decode("ascii"),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await request.body(),
    )


def verify(request: ReceivedRequest, *, keys: KeyPair, service: str, now: datetime) -> None:
    """Return if the request is signed with the known key pair for this service, now; else raise."""
    given = _authorization(request)
    if given["key"] != keys.access_key_id:
        raise AwsError(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    timestamp = _timestamp(request, given["date"], now)
    _check_scope(given, service)
    _check_payload(request)
    expected = _signature(request, given, keys, timestamp)
    if not hmac.compare_digest(expected, given["signature"]):
        _refuse(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. "
            "Consult the service documentation for details."
        )


def _refuse(message: str) -> NoReturn:
    raise AwsError(403, "InvalidSignatureException", message)


def _authorization(request: ReceivedRequest) -> dict[str, str]:
    header = request.headers.get("authorization")
    if header is None:
        raise AwsError(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(header.strip())
    if match is None:
        raise AwsError(
            403, "IncompleteSignatureException", "Authorization header is not an AWS4-HMAC-SHA256 signature."
        )
    given = match.groupdict()
    unsigned = {"host", "x-amz-date"} - set(given["headers"].split(";"))
    if unsigned:
        _refuse(f"{', '.join(sorted(unsigned))} must be a 'SignedHeader' in the AWS Authorization.")
    return given


def _timestamp(request: ReceivedRequest, scope_date: str, now: datetime) -> str:
    text = request.headers.get("x-amz-date", "")
    try:
        signed_at = datetime.strptime(text, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        _refuse(f"Date in X-Amz-Date header is not in ISO-8601 basic format: got '{text}'.")
    if not text.startswith(scope_date):
        _refuse(f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {text}.")
    if abs(now - signed_at) > MAX_CLOCK_SKEW:
        _refuse(f"Signature expired: {text} is not within 15 minutes of {now.strftime(TIMESTAMP_FORMAT)}.")
    return text


def _check_scope(given: Mapping[str, str], service: str) -> None:
    if given["region"] != REGION:
        _refuse(f"Credential should be scoped to a valid region: this is '{REGION}', not '{given['region']}'.")
    if given["service"] != service:
        _refuse(f"Credential should be scoped to correct service: '{service}'.")


def _check_payload(request: ReceivedRequest) -> None:
    # None of these services takes UNSIGNED-PAYLOAD: that is for S3 and for streams.
    claimed = request.headers.get("x-amz-content-sha256")
    if claimed is not None and claimed != hashlib.sha256(request.body).hexdigest():
        _refuse("The value of X-Amz-Content-Sha256 is not the SHA-256 of the payload.")


def _signature(request: ReceivedRequest, given: Mapping[str, str], keys: KeyPair, timestamp: str) -> str:
    signed = HTTPHeaders()
    for name in given["headers"].split(";"):
        if name not in request.headers:
            _refuse(f"'{name}' is named in SignedHeaders but was not sent.")
        signed[name] = request.headers[name]
    url = f"http://{request.headers['host']}{request.path_and_query}"
    probe = AWSRequest(method=request.method, url=url, data=request.body)
    probe.headers = signed
    probe.context["timestamp"] = timestamp
    credentials = Credentials(keys.access_key_id, keys.secret_access_key)
    signer = _ReceivedHeadersAuth(credentials, given["service"], given["region"])
    return signer.signature(signer.string_to_sign(probe, signer.canonical_request(probe)), probe)
