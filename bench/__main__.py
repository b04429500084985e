"""`python -m bench`."""

from bench.cli.main import app

app(prog_name="python -m bench")
