"""Sensors: the stage poll."""
