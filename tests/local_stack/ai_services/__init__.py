"""Tests of the local AI services, against their real processes."""
