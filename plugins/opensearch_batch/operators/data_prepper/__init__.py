"""Data Prepper pipelines in Airflow: a DAG for each pipeline of a file, on the stages that all pipelines share."""
