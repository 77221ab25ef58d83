"""Runs: plan, accounts, retention, and the outbox of asset events."""
