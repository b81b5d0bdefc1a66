"""The mathematics of codes: what autoencoders are made of, and what trains them. No networks, no files."""
