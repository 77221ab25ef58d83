"""Hooks: Airflow connections become clients here and nowhere else."""
