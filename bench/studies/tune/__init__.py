"""A search of DQAR's fields for the front of speedup and drift."""
