"""Notifications: alerts by mail and by POST."""
