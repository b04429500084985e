"""Regression tracking with asv: benchmarks, an environment without paths in its name, and our own gate."""
