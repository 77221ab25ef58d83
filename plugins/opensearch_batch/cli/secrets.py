"""Masks secrets in the errors that a command prints, expected or not."""

from __future__ import annotations

import os

from opensearch_batch.core.ingest.batch_ingestion import Credential

VARIABLES = ("OPENSEARCH_PASSWORD", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# A shorter value also occurs inside ordinary words; masking it there would reveal the secret.
MIN_CHARACTERS = 4


class Secrets:
    """The secrets that one command uses."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        for name in VARIABLES:
            self.keep(os.environ.get(name, ""))

    def keep(self, secret: str) -> str:
        """Remember a secret so that `hide` masks it, and return it."""
        if len(secret) >= MIN_CHARACTERS:
            self._known.add(secret)
        return secret

    def keep_credential(self, credential: Credential | None) -> None:
        """Remember the secrets in the credential of a request."""
        present = credential or Credential()
        for secret in (present.secret_key, present.token, present.openai_key):
            self.keep(secret or "")

    def hide(self, text: str) -> str:
        """Return the text with every remembered secret replaced with ``***``."""
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text
