"""`python -m bench`: whatever a user or a machine does wrong is one line on stderr and exit code 2."""

# Nothing else is imported here: Ctrl-C while a library loads must be caught, and so must one that fails.
import sys

try:
    import bench.interrupts

    bench.interrupts.leave_at_once()
    from bench.cli.boundary import main

    code = main()
except KeyboardInterrupt:
    sys.stderr.write("interrupted: run it again to resume\n")
    code = 130
except (ImportError, OSError) as error:  # too few file descriptors, no memory: nothing can be loaded
    sys.stderr.write(f"bench: {' '.join(str(error).split())[:300]}\n")
    code = 2
sys.exit(code)
