"""Runs: preparation, plan, accounts, retention, source ranges, and the outbox of asset events."""
