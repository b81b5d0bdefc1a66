"""Small habits that everything else has: arrays, keys, distributions, errors, files, signals."""
