"""The road of prepare: objects, records, lines of a service, shards."""
