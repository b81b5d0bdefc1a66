"""Networks that read tokens in raster order: what they say of a token depends on those before it alone."""
