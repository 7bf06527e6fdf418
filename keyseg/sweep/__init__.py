"""From a question to finished runs: design, frozen cells, the launcher, and what it shows.

    design      overrides or a file in sweeps/ -> factors, baseline, replicate, cells, labels
    cells       every cell of a design -> its frozen, checked config and its signature
    supervise   cells -> workers of a pool; each done exactly once, failures kept apart
    workers     the pool on this machine: processes, for a cell each or for several
    share       their environment
    slurm       the pool on a cluster: jobs
    sbatch      how they are submitted; job: what one does on its node
    launcher    the Hydra plugins that put these together
    status      run directories -> rows of a table
    live        that table on a terminal, or lines where there is none

Nothing here loads torch, transformers or mlflow at import time.
"""
