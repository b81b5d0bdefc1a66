"""Few-step methods: losses of maps that cross the whole way from noise to data in a step or a few."""
