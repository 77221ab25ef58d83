"""Sinks: the targets of an ingest, one class each. The engine uses only the interface in `base`."""
