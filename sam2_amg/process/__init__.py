"""What every process of this project needs: how it was started, its log, its signals, its version."""
