"""Who has to know is told when a run fails, leaves dead letters or writes nothing: by mail, and by POST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from opensearch_batch.core.pipeline.spec import Alerts

SMTP_CONN_ID = "smtp_default"
TIMEOUT_S = 30.0


class News(msgspec.Struct, frozen=True):
    """What is told: `event` is ``failed``, ``dead_letters``, ``unrouted``, or ``gone`` of a Data Prepper pipeline."""

    pipeline: str
    run_id: str
    event: str
    text: str

    @property
    def subject(self) -> str:
        """One line of it."""
        return f"{self.pipeline}: {self.event.replace('_', ' ')} in run {self.run_id}"


def alert_of_failure(alerts: Alerts) -> Callable[[Any], None] | None:
    """Return what Airflow calls when a run failed, None where nobody wants to know."""
    if not (alerts.email or alerts.webhook):
        return None

    def failed(context: Any) -> None:  # noqa: ANN401 - Airflow's context
        import logging

        run = context["dag_run"]
        tell(
            alerts,
            News(run.dag_id, run.run_id, "failed", str(context.get("reason") or "")),
            logging.getLogger(__name__),
        )

    return failed


def tell(alerts: Alerts, news: News, log: Any) -> None:  # noqa: ANN401 - Airflow's logger is structlog's
    """Tell everybody; that one way fails neither stops the other nor fails the run."""
    ways: list[Callable[[], None]] = []
    if alerts.email:
        ways.append(lambda: _mail(alerts.email, news))
    if alerts.webhook:
        ways.append(lambda: _post(str(alerts.webhook), news))
    for way in ways:
        try:
            way()
        except Exception as error:  # noqa: BLE001 - whatever a mail server or a connection is up to
            # A trace would quote addresses and keys.
            log.error("nobody could be told of %s: %s", news.subject, type(error).__name__)  # noqa: TRY400 - as it says


def _mail(addresses: list[str], news: News) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    with SmtpHook(smtp_conn_id=SMTP_CONN_ID) as hook:
        hook.send_email_smtp(to=addresses, subject=news.subject, html_content=_html(news))


def _html(news: News) -> str:
    from html import escape

    return f"<p>{escape(news.subject)}</p><p>{escape(news.text)}</p>"


def _post(conn_id: str, news: News) -> None:
    import requests

    from opensearch_batch.hooks.connections import base_url, connection

    found = connection(conn_id, "http")
    headers = {"Authorization": f"Bearer {found.password}"} if found.password else {}
    answer = requests.post(base_url(found) or "", json=msgspec.to_builtins(news), headers=headers, timeout=TIMEOUT_S)
    answer.raise_for_status()
