"""YAML files read into typed options: every mistake has its file, line and remedy."""
