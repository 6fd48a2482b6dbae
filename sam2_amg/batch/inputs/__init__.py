"""INPUTs -> shards of images -> their bytes."""
