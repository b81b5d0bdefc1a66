"""Published networks: their configs as modules of ours, and the names of their weights."""
