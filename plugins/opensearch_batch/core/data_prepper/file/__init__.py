"""What stands in a file: pipelines, and the options of each of their parts."""
