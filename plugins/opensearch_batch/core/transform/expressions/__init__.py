"""The expression language of conditions, routes, and format strings with ``${}``."""
