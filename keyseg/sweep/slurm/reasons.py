"""Why a job waits, as squeue says it, and what to do where it would wait for ever."""

from __future__ import annotations

from collections.abc import Iterable

_ORDINARY = (
    "",
    "None",
    "Priority",
    "Resources",
    "JobArrayTaskLimit",
    "Dependency",
    "BeginTime",
    "Cleaning",
    "Prolog",
    "NonZeroExitCode",
)
"""Reasons that pass by themselves."""

_TIME = "a shorter hydra.launcher.time (minutes; `sinfo -o '%P %l'` shows limits), or another "
_LIMIT = "a limit of your account: it passes when other jobs of yours or your group's end"
_ASKED = "no node can give what is asked for (hydra.launcher.gpus, memory, cores, constraint)"

_REMEDIES = {
    "PartitionTimeLimit": f"longer than the partition allows: {_TIME}partition",
    "PartitionConfig": f"the partition takes no such job, mostly for its length: {_TIME}partition",
    "PartitionNodeLimit": _ASKED,
    "PartitionDown": "the partition is down: hydra.launcher.partition",
    "PartitionInactive": "the partition is inactive: hydra.launcher.partition",
    "JobHeldUser": "held by its user: `scontrol release JOB`",
    "JobHeldAdmin": "held by an administrator: ask them",
    "JobHoldMaxRequeue": "queued again too often, and held: `scontrol release JOB`",
    "launch failed requeued held": "its start failed on a node, and it is held: "
    "`scontrol release JOB`",
    "BadConstraints": _ASKED,
    "Nodes required for job are DOWN, DRAINED": "`sinfo -R` says why they are, and since when",
    "ReqNodeNotAvail": "nodes are down, drained or reserved: `sinfo -R`, `scontrol show res`",
    "Reservation": "it waits for its reservation: `scontrol show res`",
    "Licenses": "it waits for licenses: `scontrol show lic`",
    "InvalidAccount": "no such account: hydra.launcher.account",
    "InvalidQOS": "no such QOS: hydra.launcher.qos",
    "DependencyNeverSatisfied": "what it waits for cannot happen any more: `scancel JOB`",
    "QOSMaxWallDurationPerJobLimit": f"longer than the QOS allows: {_TIME}qos",
    "AssocMaxWallDurationPerJobLimit": f"longer than the account may ask for: {_TIME}account",
    "QOSMinGRES": "the QOS wants more GPUs in a job: hydra.launcher.qos, gpus",
    "QOS": _LIMIT,
    "Assoc": _LIMIT,
    "Max": _LIMIT,
}
"""By how a reason begins; the longest fits."""


def remedy(reason: str) -> str | None:
    """What to do about a job that waits for this; None where it is the queue's ordinary course."""
    if reason in _ORDINARY:
        return None
    fitting = [start for start in _REMEDIES if reason.startswith(start)]
    if not fitting:
        return "`scontrol show job JOB` says more"
    return _REMEDIES[max(fitting, key=len)]


def sentence(reason: str, ids: Iterable[str] = ()) -> str | None:
    """Reason and remedy in one sentence, with the id of a job in its place; None: ordinary."""
    what = remedy(reason)
    if what is None:
        return None
    first = next(iter(ids), "")
    return f"{reason}: {what.replace('JOB', first.partition('_')[0] or 'JOB')}"
