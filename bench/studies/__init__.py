"""Studies that are more than a grid of configurations, each with a page of its own."""
