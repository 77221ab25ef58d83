"""The formats of source and output objects: one module per format, for both front ends."""
