"""The learned policy of a model: traced, trained, and compared with what needs no training."""
