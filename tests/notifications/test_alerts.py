"""Alerts are sent by mail and by POST; a failure of one stops neither the other nor the run."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from email import message_from_string
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from opensearch_batch.core.pipeline.spec_parts import Alerts
from opensearch_batch.core.runs.run_account import ShardRunAccount, ShardRunCounts
from opensearch_batch.notifications.alerts import Alert, failure_notifier, send
from tests.serving import Exchange, Server
from tests.stored import present
from tests.waiting import WAIT_S

ALERT = Alert("books", "manual__1", "dead_letters", "3 dead letters of 10 records: s3://w/<x>/")


class Mail:
    """A mail server of one mail."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.text = ""
        self.receivers: list[str] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(b"220 here\r\n")
            while line := stream.readline():
                word = line.split()[0].upper() if line.split() else b""
                if word == b"DATA":
                    stream.write(b"354 go on\r\n")
                    lines = []
                    while (part := stream.readline()) != b".\r\n":
                        lines.append(part.decode())
                    self.text = "".join(lines)
                elif word == b"RCPT":
                    self.receivers.append(line.decode().partition("<")[2].partition(">")[0])
                stream.write(b"250 fine\r\n" if word != b"QUIT" else b"221 bye\r\n")
                if word == b"QUIT":
                    return

    def close(self) -> None:
        """Wait for its end."""
        self._server.close()
        self._thread.join(WAIT_S)


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mail]:
    """A mail server that Airflow's connection names."""
    server = Mail()
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    yield server
    server.close()


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str | None, Any]]]:
    """The requests that a connection's server received: path, authorization and body."""
    found: list[tuple[str, str | None, Any]] = []

    def answer(request: Exchange) -> None:
        found.append((request.path, request.headers["Authorization"], json.loads(request.body())))
        refused = request.path.startswith("/refused/")
        request.reply(500 if refused else 200, b"no-such-hook" if refused else b"")

    server = Server(answer)
    connection = {"conn_type": "http", "host": f"{server.url}/hooks/1", "password": "token-of-hook"}
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", json.dumps(connection))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield found
    server.close()


def test_an_alert_by_mail(mail: Mail) -> None:
    """A mail goes to all addresses, with markup in the text escaped."""
    send(Alerts(email=["a@example.com", "b@example.com"]), ALERT)
    mail.close()
    message = message_from_string(mail.text)
    assert message["Subject"] == "books: dead letters in run manual__1"
    assert mail.receivers == ["a@example.com", "b@example.com"]
    (part,) = (part for part in message.walk() if not part.is_multipart())
    assert b"s3://w/&lt;x&gt;/" in bytes(part.get_payload(decode=True))


def test_an_alert_by_post(posted: list[Any]) -> None:
    """A POST is JSON, with the connection's password as bearer token."""
    send(Alerts(webhook="hook"), ALERT)
    ((path, authorization, body),) = posted
    assert (path, authorization) == ("/hooks/1", "Bearer token-of-hook")
    assert body == {"pipeline": "books", "run_id": "manual__1", "event": "dead_letters", "text": ALERT.text}


def test_a_failing_alert_is_logged_and_stops_no_other(posted: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """Without a mail server the POST is sent all the same; the log shows no address and no token."""
    send(Alerts(email=["a@example.com"], webhook="hook"), ALERT)
    assert len(posted) == 1
    assert "could not send the alert 'books: dead letters in run manual__1'" in caplog.text
    assert "example.com" not in caplog.text


def test_a_webhook_that_fails_is_logged_without_its_url(
    posted: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    """Neither a refused connection nor an error response quotes the URL, the token or the response, at any level."""
    extra = {"conn_type": "http", "password": "token-of-hook"}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps({**extra, "host": "http://127.0.0.1:9/hooks/secret-path"}))
    refusing = json.loads(os.environ["AIRFLOW_CONN_HOOK"])["host"].replace("/hooks/1", "/refused/secret-path")
    monkeypatch.setenv("AIRFLOW_CONN_REFUSED", json.dumps({**extra, "host": refusing}))
    with caplog.at_level(logging.DEBUG), capture_logs() as entries:
        logging.getLogger("urllib3").setLevel(logging.INFO)
        for name in ("away", "refused"):
            send(Alerts(webhook=name), ALERT)
    assert posted[0][0] == "/refused/secret-path"
    lines = [line for line in caplog.messages if "could not send the alert" in line]
    assert [line.rpartition(" ")[2] for line in lines] == ["ConnectionError", "AirflowException"]
    captured = capsys.readouterr()
    logged = f"{caplog.text} {entries} {captured.out} {captured.err}"
    assert not [secret for secret in ("secret-path", "token-of-hook", "no-such-hook") if secret in logged]


def test_an_alert_is_no_template(posted: list[Any]) -> None:
    """An alert may quote a record, which must not be rendered."""
    send(Alerts(webhook="hook"), Alert("books", "r", "failed", "{{ 6 * 7 }}"))
    assert posted[0][2]["text"] == "{{ 6 * 7 }}"


def test_a_failed_run_causes_an_alert(posted: list[Any]) -> None:
    """Airflow calls the notifier with the run; without recipients there is none."""
    notifier = present(failure_notifier(Alerts(webhook="hook")))
    notifier({"dag_run": SimpleNamespace(dag_id="books", run_id="r"), "reason": "task_failure"})
    assert posted[0][2] == {"pipeline": "books", "run_id": "r", "event": "failed", "text": "task_failure"}
    assert failure_notifier(Alerts()) is None


@pytest.mark.parametrize(
    ("counts", "alerts"),
    [
        (ShardRunCounts(read=9, indexed=9), []),
        (ShardRunCounts(read=9, indexed=8, unrouted=1), []),
        (
            ShardRunCounts(read=9, indexed=7, dead_letters=1, unrouted=1),
            [("dead_letters", "1 dead letters of 9 records: s3://w/d/")],
        ),
        (
            ShardRunCounts(read=9, unrouted=9),
            [("unrouted", "all 9 records are unrouted, because ingest.when is true for none; correct it")],
        ),
    ],
)
def test_alerts_about_a_run_that_ended_well(counts: ShardRunCounts, alerts: list[tuple[str, str]]) -> None:
    """Records that `when` excludes cause no alert, unless it excludes all of them."""
    assert (
        list(ShardRunAccount("books", "r", counts=counts, dead_letters=["s3://w/d/"], source="s3://d/").alerts())
        == alerts
    )
