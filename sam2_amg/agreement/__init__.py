"""How far masks agree with others: those of an image, and of a list of images."""
