"""Calibration: a search for plans: which steps run, with which branches, and what their layers reuse."""
