"""Alerts by mail and POST: failed runs, dead letters, unrouted rows, deleted outputs. Airflow's providers send them.

An alert that cannot be sent fails neither the run nor the other alert, and no log shows an address or a key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
from airflow.sdk import BaseNotifier, Context

from opensearch_batch.core.pipeline.spec_parts import Alerts

SMTP_CONN_ID = "smtp_default"
log = logging.getLogger(__name__)


class Alert(msgspec.Struct, frozen=True):
    """One alert; `event` is ``failed``, ``dead_letters``, ``unrouted``, or ``gone`` (deleted outputs of jobs)."""

    pipeline: str
    run_id: str
    event: str
    text: str

    @property
    def subject(self) -> str:
        """The alert in one line."""
        return f"{self.pipeline}: {self.event.replace('_', ' ')} in run {self.run_id}"


class FailureNotifier(BaseNotifier):
    """Sends the alert ``failed`` to the recipients, as `on_failure_callback` of a DAG."""

    def __init__(self, alerts: Alerts) -> None:
        super().__init__()
        self.alerts = alerts

    def notify(self, context: Context) -> None:
        """Send the alert."""
        run = context["dag_run"]
        send(self.alerts, Alert(run.dag_id, run.run_id, "failed", str(context.get("reason") or "")))


def failure_notifier(alerts: Alerts) -> FailureNotifier | None:
    """Return the notifier of failed runs, None if there are no recipients."""
    return FailureNotifier(alerts) if alerts.email or alerts.webhook else None


def send(alerts: Alerts, alert: Alert) -> None:
    """Send an alert to all recipients."""
    factories: list[Callable[[], BaseNotifier]] = []
    if alerts.email:
        factories.append(lambda: _mail(alerts.email, alert))
    if alerts.webhook:
        factories.append(lambda: _post(str(alerts.webhook), alert))
    for create in factories:
        try:
            # `notify`, not `__call__`: that would render the alert as a template, and the alert may quote a record.
            create().notify({})
        except Exception as error:  # noqa: BLE001 - a mail server or a connection may fail in any way
            # A traceback would show addresses and keys.
            log.error("could not send the alert %r: %s", alert.subject, type(error).__name__)  # noqa: TRY400 - as above


def _mail(addresses: list[str], alert: Alert) -> BaseNotifier:
    from html import escape

    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    content = f"<p>{escape(alert.subject)}</p><p>{escape(alert.text)}</p>"
    return SmtpNotifier(to=addresses, subject=alert.subject, html_content=content, smtp_conn_id=SMTP_CONN_ID)


def _post(conn_id: str, alert: Alert) -> BaseNotifier:
    from opensearch_batch.notifications.webhook import WebhookNotifier

    return WebhookNotifier(conn_id, msgspec.to_builtins(alert))
