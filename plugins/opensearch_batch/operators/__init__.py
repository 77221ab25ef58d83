"""Operators: one module for each stage, thin over core."""
