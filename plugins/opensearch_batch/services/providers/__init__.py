"""Our own way to each AI service's API, beside ML Commons: uploads, and jobs that ML Commons does not know."""

from __future__ import annotations
