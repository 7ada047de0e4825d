"""Files that last: how they are written, known again, and what the system says of them."""
