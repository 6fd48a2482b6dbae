"""Triton kernels, one operation per file. Each names its twin, a reference with the same results in plain torch."""
