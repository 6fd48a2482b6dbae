"""Replicas: processes on many devices, of one host or of a cluster, that Ray places, restarts and scales."""
