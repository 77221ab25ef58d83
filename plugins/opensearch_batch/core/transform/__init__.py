"""Transforms records into documents: field maps, events, expressions, processors."""
