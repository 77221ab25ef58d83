"""Data Prepper pipelines (OpenSearch Ingestion's): their YAML, and what it does to events; no Airflow here."""
