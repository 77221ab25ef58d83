"""Triggers: the waits of deferred tasks, in the triggerer."""
