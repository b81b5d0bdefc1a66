"""Autoencoders, a page each; `compose` makes experiments of them."""
