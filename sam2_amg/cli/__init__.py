"""The command lines. They import torch only when needed, so that --help and flag errors are instant."""
