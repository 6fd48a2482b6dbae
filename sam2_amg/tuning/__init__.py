"""Finds launch configurations for a GPU by measuring."""
