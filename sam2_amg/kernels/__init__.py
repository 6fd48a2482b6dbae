"""Triton kernels, one operation a file. Each names its plain-torch twin."""
