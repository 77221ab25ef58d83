"""How options are read, of whatever part of a file: their types, and a mistake with its line."""
