"""Reads Data Prepper files: pipelines, and the options of their sources, processors and sinks."""
