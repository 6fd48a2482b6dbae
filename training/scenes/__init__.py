"""Scenes that are drawn, with their ground truth."""
