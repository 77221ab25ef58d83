"""Ingest: rows are joined, become documents, are written to a sink, and are accounted for."""
