"""Notifications: who is told when a run fails or leaves dead letters."""
