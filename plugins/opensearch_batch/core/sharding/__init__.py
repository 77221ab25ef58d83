"""Sharding: the records of source objects become service-ready shards."""
