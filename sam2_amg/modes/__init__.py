"""A recipe a mode: which function stands at each stage of the pipeline. `build.py` chooses among them."""
