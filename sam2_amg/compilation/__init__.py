"""Subgraphs of static shapes: compiled here and now, or ahead of time into packages; on a GPU, CUDA graphs."""
