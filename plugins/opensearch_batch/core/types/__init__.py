"""The frozen values that the other rooms exchange. Nothing here does I/O."""
