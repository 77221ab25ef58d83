"""Frozen value types that the other packages exchange. Nothing here does I/O."""
