"""Events, and operations on their values with the semantics of the JVM."""
