"""The machine: its device, provenance, NVML, processes, files written whole, and digests."""
