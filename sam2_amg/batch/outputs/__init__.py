"""What a shard is written as, a file a format."""
