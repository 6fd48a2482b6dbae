"""Replicas: processes on many devices, of one host or of a cluster, that Ray places, restarts and scales."""

from sam2_amg.process.account import complete_account

complete_account()  # in processes that Ray starts, which this is the first import of
