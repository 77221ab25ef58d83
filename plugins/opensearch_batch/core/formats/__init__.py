"""The formats of source and output objects: one module a format, for both front ends."""
