"""How a pipeline runs: one thread reads, one applies, and others watch them."""
