"""From a question to finished runs: the design, its cells, and the launchers that get them done.

    design      overrides or a file in sweeps/ -> factors, baseline, replicate, cells, labels
    cells       every cell of a design -> its frozen, checked config and its signature
    preflight   weights and data, looked at before anything starts
    supervise   cells -> workers of a pool; each done exactly once, failures kept apart
    pool        what a pool is; those there are: local/ (processes), slurm/ (jobs)
    launcher    what all launchers do with a sweep, from its design to its end
    status      run directories -> where each cell stands
    progress    that as a table on a terminal, or as lines where there is none
    finish      the end: report, MLflow, the table of results
    single      one run without a sweep
    local/ slurm/ tune/    a folder for each place to run, and one for the tuner

Nothing here loads torch, transformers or mlflow at import time.
"""
