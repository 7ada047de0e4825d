"""A long run under load, with faults and comparisons: whether something differs, and whether something grows."""
