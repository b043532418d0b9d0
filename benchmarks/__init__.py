"""Benchmarks: paibook and its peers in turn, on the same work, in one run."""
