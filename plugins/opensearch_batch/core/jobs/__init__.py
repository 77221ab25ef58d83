"""The road of a batch job: known by its key, submitted at most once, waited for, repaired."""
