"""Sinks: where an ingest writes items. A sink has one class here; the engine knows only the interface in `base`."""
