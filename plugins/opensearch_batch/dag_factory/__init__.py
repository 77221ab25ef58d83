"""The DAG factory: DAGs built of pipeline files, ours and Data Prepper's."""
