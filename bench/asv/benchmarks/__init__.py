"""What asv runs. Every figure is better lower: what is kept is tracked as what is lost."""
