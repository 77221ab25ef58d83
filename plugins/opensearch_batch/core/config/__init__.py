"""Reads YAML files into typed options; every error names file, line and remedy."""
