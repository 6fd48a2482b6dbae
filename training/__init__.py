"""How the demo model is made. README.md says how to make it again."""
