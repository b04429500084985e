"""What asv runs. Every figure is better lower: what is kept is tracked as what is lost.

One round each: `make asv` passes over all of them several times, which spreads the samples wider.
"""
