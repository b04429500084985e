"""Whether entropy, or the error of reuse, depends on how long a prompt is."""
