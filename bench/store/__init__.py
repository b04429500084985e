"""Records on disk: their keys, reading and writing them, what makes one invalid, and older ones in git."""
