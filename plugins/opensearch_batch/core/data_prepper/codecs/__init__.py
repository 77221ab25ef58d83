"""Objects to events and events to objects: ndjson, newline, json, csv, parquet."""
