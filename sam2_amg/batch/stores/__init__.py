"""Places for outputs: folders and buckets."""
