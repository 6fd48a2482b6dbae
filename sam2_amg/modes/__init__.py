"""The modes: which function runs at each stage of the pipeline. `build.py` chooses by mode."""
