"""Image data sets and their batches, as uint8 arrays on the host."""
