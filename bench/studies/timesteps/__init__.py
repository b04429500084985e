"""Timesteps for the solvers that DQAR competes with: searched as its own plans are."""
