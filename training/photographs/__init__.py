"""Photographs that packages ship, with things outlined by hand."""
