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

import logging

# diffusers imports torchao wherever it is, and both warn of that alone; nothing here needs what they warn of.
_ABOUT_TORCHAO = {
    "torch.utils._pytree": "Calling register_constant() on Enum subclasses is deprecated",
    "diffusers.quantizers.torchao.torchao_quantizer": "Unable to import `torchao` Tensor objects",
}


class _Without(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return _ABOUT_TORCHAO[record.name] not in record.getMessage()


for _name in _ABOUT_TORCHAO:
    logging.getLogger(_name).addFilter(_Without())
