"""The command lines. Nothing here imports torch before it must, so that --help and a wrong flag are instant."""
