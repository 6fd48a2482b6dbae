"""Plain torch: mask statistics, run lengths, NMS, crops. What a CPU runs, and the twins of kernels."""
