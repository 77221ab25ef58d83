"""What Airflow's api-server serves: pages, and ML Commons' API. No other process of Airflow imports this package."""
