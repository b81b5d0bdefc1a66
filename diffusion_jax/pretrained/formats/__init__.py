"""Files of others: bytes to arrays, within bounds; nothing in them is executed."""
