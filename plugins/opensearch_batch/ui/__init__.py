"""What Airflow's api-server serves for this package. Imported only there: no DAG file, worker or scheduler loads it."""
