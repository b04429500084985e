"""What is to be run: a suite file becomes a list of `RunSpec`, and the files that it names."""
