"""The engine: everything that decides or moves data. It imports neither Airflow nor an AI service."""
