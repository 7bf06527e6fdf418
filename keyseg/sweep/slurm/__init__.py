"""Cells on a cluster: job arrays through submitit."""
