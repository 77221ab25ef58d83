"""The DAG factory: a pipeline file becomes a DAG."""
