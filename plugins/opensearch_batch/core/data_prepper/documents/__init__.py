"""Rows to events, through processors and routes, to documents."""
