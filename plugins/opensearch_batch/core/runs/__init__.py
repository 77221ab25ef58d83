"""A run as a whole: what it would do, what became of all its records, what goes when its time has come."""
