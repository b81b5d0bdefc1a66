"""Training: `state` and `step` are pure, `parallel` compiles them, `checkpoint` and `workdir` keep, `loop` runs."""
