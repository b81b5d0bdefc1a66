"""Trained networks of others, composed to be drawn from."""
