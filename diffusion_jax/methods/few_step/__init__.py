"""Methods that draw in few steps: students of a trained run, and models that learn to jump from nothing."""
