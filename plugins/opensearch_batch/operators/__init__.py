"""Operators: one module for each stage; the logic is in core."""
