"""What a sink writes, and how: requests to OpenSearch, objects in S3, dead letters."""
