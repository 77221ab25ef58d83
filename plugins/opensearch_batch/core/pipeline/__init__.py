"""Pipeline files: schema, rules, offline check, the tests in a file, and estimates."""
