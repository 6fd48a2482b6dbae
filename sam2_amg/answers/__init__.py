"""Answers: from records to bytes, in the format that is asked for. Imports neither torch nor the server."""
