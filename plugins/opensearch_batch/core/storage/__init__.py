"""Stores of objects, plain or compressed: S3, files of this machine, and others by the scheme of the URI."""
