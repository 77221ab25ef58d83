"""Real local servers for everything the pipelines talk to, on loopback, without containers."""
