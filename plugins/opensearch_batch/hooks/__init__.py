"""Hooks: create clients from Airflow connections. No other package resolves connections."""
