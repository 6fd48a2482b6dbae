"""Benchmarks: programs that make the numbers in results/ and README.md."""
