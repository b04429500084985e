"""The harness: runs the baseline, DQAR and its competitors, and reports what it measured.

Each directory imports only from those above it in this list, and `dqar` imports nothing from here:

    errors, record, stats, interrupts   what everything shares: errors of one line, the schema of a result,
                            intervals, Ctrl-C
    machine                 the device, provenance, NVML, processes, files written whole
    methods                 the baseline, DQAR and its competitors; a method knows a pipeline, not a suite
    spec                    a suite file becomes a list of RunSpec, whose options the methods check
    embedded                the models that ship, and what trained them
    pipeline                the model that a RunSpec names, and one generation of it
    store                   records on disk; tensors that runs share
    measure                 time, memory, quality, FLOPs of a configuration
    report                  pages, tables and plots from records alone
    run                     the configurations of a suite, in processes of their own
    studies                 more than a grid of configurations: a search, a calibration, a trained policy
    regression              asv benchmarks and the gate on them
    cli                     the command line

`tests/test_architecture.py` holds this order.
"""
