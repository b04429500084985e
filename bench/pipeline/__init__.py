"""The pipeline that a suite names: found, checked and loaded, and one generation of it."""
