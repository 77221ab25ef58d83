"""The AI services: a registry, and one entry each with adapter, client and storage."""
