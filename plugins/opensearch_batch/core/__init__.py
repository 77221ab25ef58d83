"""The engine: all decisions and data processing. It imports neither Airflow nor an AI service."""
