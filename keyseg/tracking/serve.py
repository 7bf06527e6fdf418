"""MLflow's own pages on a store: a server of this machine, for as long as somebody looks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keyseg.config import ConfigError
from keyseg.runs import sweep_directory
from keyseg.tracking import pages, variant_runs
from keyseg.tracking.names import IDENTITY
from keyseg.tracking.store import client_of, get_run, settings

HOST = "127.0.0.1"
_PATIENCE = 180.0
"""Seconds in which a server that starts has to answer: a slow disk takes a minute to import it."""


class ServerError(RuntimeError):
    """MLflow did not start; the message has what it said."""


@contextmanager
def serving(uri: str, port: int) -> Iterator[str]:
    """The address of MLflow on a store; it answers when the body begins, and ends with it.

    Raises:
        ServerError: it ended, or does not answer.
    """
    settings()
    command = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # By its environment: the command line of a process is for everybody to read.
    named = {"MLFLOW_BACKEND_STORE_URI": uri}
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with (
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryDirectory() as folder,  # MLflow makes ./mlartifacts where it starts
        subprocess.Popen(
            [sys.executable, *command],
            stdout=said,
            stderr=said,
            env=environment | quiet | named,
            cwd=folder,
            start_new_session=True,  # its workers end with it
        ) as server,
    ):
        try:
            address = f"http://{HOST}:{port}"
            if not _answers(f"{address}/health", server):
                said.seek(0)
                raise ServerError(said.read().decode(errors="replace").strip() or "no word")
            yield address
        finally:
            _end(server)


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return True
        time.sleep(0.1)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
            return


def free_port(first: int, *, others: bool) -> int:
    """`first`, or with `others` the next port that nobody listens on.

    Raises:
        ConfigError: it is taken.
    """
    for port in range(first, first + (100 if others else 1)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise ConfigError(f"--port {first}: something listens there already; give another one")


def places(uri: str, sweep_dir: Path | None) -> dict[str, str]:
    """{what it is: where below MLflow's address} of a sweep, or of the store as a whole.

    Raises:
        ConfigError: the store has nothing of this sweep.
    """
    if sweep_dir is None:
        return {"MLflow": "#/experiments?workflowType=machine_learning"}
    client = client_of(uri)
    experiment = client.get_experiment_by_name(sweep_dir.name)
    if experiment is None:
        raise ConfigError(
            f"MLflow has nothing of '{sweep_dir.name}' yet: `keyseg sync {sweep_dir.name}`"
        )
    number = experiment.experiment_id
    addresses = {"cells": pages.view(number)}
    sweep = sweep_directory.read(sweep_dir)
    if variant_runs.exist(client, number):
        addresses["variants"] = pages.view(number, pages.VARIANTS)
    parent = sweep.get("mlflow_parent")
    run = get_run(client, parent) if parent else None
    if run is not None and run.data.tags.get(IDENTITY) in (None, sweep.get("id")):
        return {"sweep": pages.run(run.info.experiment_id, run.info.run_id), **addresses}
    return addresses


def tunnel(port: int) -> str | None:
    """The command that brings a server here to one's own machine; None where this is that."""
    user, host = os.environ.get("USER") or "USER", socket.gethostname()
    forward = f"ssh -N -L {port}:{HOST}:{port}"
    if os.environ.get("SLURM_JOB_ID"):
        login = os.environ.get("SLURM_SUBMIT_HOST") or "LOGIN_NODE"
        return f"{forward} -J {user}@{login} {user}@{host}"
    return f"{forward} {user}@{host}" if os.environ.get("SSH_CONNECTION") else None
