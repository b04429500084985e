"""The harness: runs the baseline, DQAR and its competitors, and reports what it measured."""
