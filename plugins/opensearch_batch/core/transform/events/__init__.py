"""An event and the values in it, as the JVM has them."""
