"""Batch jobs: submission at most once, polling, repair of failed records."""
