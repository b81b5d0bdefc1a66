"""Layers and embeddings."""
