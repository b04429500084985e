"""What is measured: time, memory, quality, arithmetic, and the machine it was measured on."""
