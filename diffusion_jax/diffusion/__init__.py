"""The mathematics of diffusion: pure functions of jax and numpy; no networks, no files, no configs."""
