"""The network: checkpoints, and the image encoder and mask decoder in the variants that the modes use."""
