"""Running servers that are asked for masks."""
