"""One program on one device or many: replicated, sharded, several steps a call."""
