"""The front end for Data Prepper (OpenSearch Ingestion) files: read, lint, compile, convert."""
