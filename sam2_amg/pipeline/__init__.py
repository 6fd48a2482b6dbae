"""The pipeline of an image: decode, preprocess, prompt, segment, and convert masks to records."""
