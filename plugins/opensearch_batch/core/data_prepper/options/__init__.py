"""Option types that sources, processors and sinks share."""
