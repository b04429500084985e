"""What a CUDA device is asked in six minutes: steps in order of importance, each with a result of its own."""
