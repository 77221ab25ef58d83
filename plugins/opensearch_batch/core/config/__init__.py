"""Reads YAML files into typed options. Every error contains the file, the line and a remedy."""
