"""What holds on both models that ship, and what only on one: configurations, signals, axes and plans."""
