"""Image files -> upright RGB, in processes of their own. Nothing here imports torch."""

from sam2_amg.decoding.stretch import STRETCHES

__all__ = ["STRETCHES"]
