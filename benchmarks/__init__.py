"""Performance claims are ratios against a named rival in one run; `make bench` repeats them."""
