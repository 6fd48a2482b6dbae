"""Mask statistics, run lengths, NMS and crops in plain torch, for CPUs and as references for the Triton kernels."""
