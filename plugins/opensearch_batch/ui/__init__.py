"""What Airflow's api-server serves: the pages. No other process of Airflow imports this package."""
