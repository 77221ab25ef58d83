"""Formats of source and output objects, one module per format."""
