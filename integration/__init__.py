"""Tests against real servers, which they start themselves, and the benchmarks."""
