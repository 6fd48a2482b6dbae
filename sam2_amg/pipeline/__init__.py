"""The way of an image: decoded, preprocessed, prompted, segmented, and its masks as records."""
