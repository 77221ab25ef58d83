"""Everything that decides or moves data. Nothing below this package imports Airflow."""
