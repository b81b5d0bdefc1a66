"""Where images come from: `sources` (random access), `pipeline` (batches in order), `device` (prefetch)."""
