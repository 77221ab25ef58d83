"""What happens to a record on its way to a document: field maps, events, expressions, processors."""
