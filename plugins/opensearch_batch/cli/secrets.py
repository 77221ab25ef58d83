"""Removes secrets from output, including the text of unexpected errors."""

from __future__ import annotations

import os

from opensearch_batch.core.ingest.batch_ingestion import Credential

VARIABLES = ("OPENSEARCH_PASSWORD", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# Shorter values occur in ordinary words, and hiding them there would reveal them.
MIN_CHARACTERS = 4


class Secrets:
    """The secrets of one command."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        for name in VARIABLES:
            self.keep(os.environ.get(name, ""))

    def keep(self, secret: str) -> str:
        """Remember a secret and return it."""
        if len(secret) >= MIN_CHARACTERS:
            self._known.add(secret)
        return secret

    def keep_credential(self, credential: Credential | None) -> None:
        """Remember the secrets of a request."""
        own = credential or Credential()
        for secret in (own.secret_key, own.token, own.openai_key):
            self.keep(secret or "")

    def hide(self, text: str) -> str:
        """Return a text with its secrets replaced by ``***``."""
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text
