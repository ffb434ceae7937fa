"""Benchmarks: what the engine costs and what it gives. Figures come from here, never from tests."""
