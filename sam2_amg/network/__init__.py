"""The network: checkpoints, image encoder and mask decoder, in each form that a mode may use."""
