"""Hooks: clients made of Airflow connections, which nothing else resolves."""
