"""Ingest: joins rows, makes documents, writes them to a sink, and counts every row."""
