"""Networks that judge images and draw none."""
