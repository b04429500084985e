"""The text of a report."""
