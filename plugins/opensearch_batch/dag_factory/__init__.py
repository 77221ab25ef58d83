"""The DAG factory: builds DAGs from pipeline files of this package and of Data Prepper."""
