"""Static-shape subgraphs: compiled at start-up or ahead of time into packages; on a GPU, captured as CUDA graphs."""
