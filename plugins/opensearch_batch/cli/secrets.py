"""What the command line was given in confidence never leaves it, not in an unexpected error's text either."""

from __future__ import annotations

import os

from opensearch_batch.core.ingest.request import Credential

VARIABLES = ("OPENSEARCH_PASSWORD", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# What is shorter is part of ordinary words, and hiding it there would say what it is.
MIN_CHARACTERS = 4


class Secrets:
    """The secrets of one run."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        for name in VARIABLES:
            self.keep(os.environ.get(name, ""))

    def keep(self, secret: str) -> str:
        """Remember one more, and return it."""
        if len(secret) >= MIN_CHARACTERS:
            self._known.add(secret)
        return secret

    def keep_credential(self, credential: Credential | None) -> None:
        """Remember those of a request."""
        own = credential or Credential()
        for secret in (own.secret_key, own.token, own.openai_key):
            self.keep(secret or "")

    def hide(self, text: str) -> str:
        """Return a text without them."""
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text
