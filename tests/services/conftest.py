"""Clients of the services run against the local ones: processes that speak the services' own APIs."""

from __future__ import annotations

from tests.local_stack.ai_services.conftest import ai_model_dir, ai_running, ai_stand

__all__ = ["ai_model_dir", "ai_running", "ai_stand"]
