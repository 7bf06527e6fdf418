"""The tuner: Optuna chooses the next cells of a sweep from the scores of those that have ended.

    space       Hydra's sweep syntax -> Optuna's distributions, and parameters -> overrides
    options     what `hydra/sweeper=optuna` takes
    samplers    name of a sampler or pruner -> the object
    storage     the study: a journal file in the sweep's folder, or any storage URL
    objective   a finished run -> the values of its trial
    studies     one study each: the whole tuning, or one per value of `tune_per`
    enqueue     points that are tried first: known ones, and all of a grid
    warm        finished cells of other sweeps as trials
    settings    parameters -> cells: those of trials, and of what is compared at the end
    prune       rows of cells at work to the study, and its verdict to the workers
    control     asks, starts, watches, prunes and tells, with all workers always at work
    progress    the table while it runs
    record      sweep.json and trials.json
    results     best values as overrides to paste, and as a file for sweeps/
    tuning      one invocation, which puts these together
    sweeper     the Hydra sweeper

Optuna is imported inside functions only: a sweep without a tuner does not pay for it.
"""
