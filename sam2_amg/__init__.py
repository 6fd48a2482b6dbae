"""SAM 2.1's automatic mask generator over HTTP. Start reading at docs/architecture.md."""
