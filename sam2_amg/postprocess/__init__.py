"""Plain torch: the specification of everything that has a faster twin."""
