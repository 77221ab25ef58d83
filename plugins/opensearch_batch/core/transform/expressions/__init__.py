"""The expression language: conditions, routes, and texts with ``${}``."""
