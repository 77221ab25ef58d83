"""Cuts the records of source objects into service-ready shards."""
