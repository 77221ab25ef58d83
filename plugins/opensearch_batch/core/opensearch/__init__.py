"""The OpenSearch cluster and ML Commons: clients, calls, and their errors."""
