"""Immutable value types that the other packages exchange. This package performs no I/O."""
