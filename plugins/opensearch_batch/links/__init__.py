"""Links that the UI shows on a task."""
