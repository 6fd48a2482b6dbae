"""The door for a million images: inputs -> shards -> outputs, which are the checkpoint."""
