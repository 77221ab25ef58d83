"""A pipeline's file: read, held against its rules, tried by the tests in it, reckoned up before it costs anything."""
