"""How the demo model is made. docs/demo-model.md says how to make it again."""
