"""What docker-compose.yaml needs beside Airflow: its secrets, certificates, sample data."""
