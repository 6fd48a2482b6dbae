"""Image files -> upright RGB, in processes of their own. Nothing here imports torch."""
