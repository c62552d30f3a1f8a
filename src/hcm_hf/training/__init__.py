"""One loop that trains any family's objective."""
