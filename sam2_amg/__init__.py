"""Segment everything: SAM 2.1's automatic mask generator behind HTTP. docs/architecture.md says where to start
reading."""
