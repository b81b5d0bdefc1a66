"""Published schedulers: their noise, their grids and their ways down."""
