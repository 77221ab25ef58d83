"""The road of ingest: a request, rows, joins, documents, bulk bodies, and the account of every row."""
