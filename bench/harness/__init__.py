"""What a benchmark runs: systems in processes of their own, images, weights, clocks, load."""
