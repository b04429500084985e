"""Runs the configurations of a suite in processes of their own."""
