"""Benchmarks: `python -m benchmarks.<name>`, ours against a plain, well-written baseline."""
