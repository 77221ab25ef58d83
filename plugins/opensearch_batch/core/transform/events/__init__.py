"""Events, and their values with the semantics of the JVM."""
