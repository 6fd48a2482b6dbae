"""Triton kernels, one operation a file, with the signatures of their plain-torch twins in `postprocess/`."""
