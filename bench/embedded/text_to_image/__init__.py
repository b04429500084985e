"""A small text-to-image MMDiT with flow matching, and the scorer of its images against their prompts."""
