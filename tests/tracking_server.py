"""An MLflow tracking server on a PostgreSQL of its own, on loopback, for a test or a benchmark."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

USER = "postgres"
"""Who the database runs as where we are root, which it refuses; Debian's package makes the user."""


def missing() -> str | None:
    """What is not installed; None: all is there."""
    if _program("initdb") is None or _program("postgres") is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if find_spec("psycopg2") is None:
        return "psycopg2 is not installed (pip install -e '.[postgres]')"
    if os.geteuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        return f"PostgreSQL does not run as root, and there is no user {USER}"
    return None


@contextmanager
def tracking_server(log: Path, workers: int = 2) -> Iterator[str]:
    """Address of the server; it and its database end with the body. `log`: folder for logs."""
    # A socket has a short name, and the user of the database must reach it.
    root = Path(tempfile.mkdtemp(prefix="keyseg-pg-"))
    try:
        with _postgres(root, log) as database, _mlflow(root, database, log, workers) as address:
            yield address
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _postgres(root: Path, log: Path) -> Iterator[str]:
    """URI of an empty database."""
    user = USER if os.geteuid() == 0 else None
    data, port = root / "data", free_port()
    data.mkdir()
    for folder in (root, data):
        if user:
            shutil.chown(folder, user)
    as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
    initdb = [_program("initdb"), "-D", data, "-U", "keyseg", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True, **as_user)
    with (log / "postgres.log").open("wb") as out:
        server = subprocess.Popen(
            [
                _program("postgres"),
                "-D",
                data,
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-k",
                root,
                "-c",
                "max_connections=100",
            ],
            stdout=out,
            stderr=out,
            **as_user,
        )
    try:
        _create_database(port, server)
        yield f"postgresql+psycopg2://keyseg@127.0.0.1:{port}/mlflow"
    finally:
        _end(server)


def _create_database(port: int, server: subprocess.Popen[bytes]) -> None:
    import psycopg2

    for _ in range(600):
        assert server.poll() is None, "PostgreSQL did not start"
        with suppress(psycopg2.OperationalError):
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user="keyseg", dbname="postgres"
            )
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE mlflow")
            connection.close()
            return
        time.sleep(0.1)
    raise TimeoutError("PostgreSQL does not answer")


@contextmanager
def _mlflow(root: Path, database: str, log: Path, workers: int) -> Iterator[str]:
    address = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        address.rsplit(":", 1)[1],
        "--workers",
        str(workers),
        "--backend-store-uri",
        database,
        "--artifacts-destination",
        str(root / "artifacts"),
    ]
    quiet = ("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    environment = {**os.environ, **dict(quiet), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (log / "mlflow.log").open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=log, start_new_session=True
        )
    try:
        for _ in range(3000):
            assert server.poll() is None, (log / "mlflow.log").read_text()[-3000:]
            with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.1)
        else:
            raise TimeoutError((log / "mlflow.log").read_text()[-3000:])
        yield address
    finally:
        _end(server, group=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str | None:
    """Debian keeps the server's programs off the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name)


def _end(process: subprocess.Popen[bytes], *, group: bool = False) -> None:
    """SIGTERM, and SIGKILL where that is not heard; `group`: it has workers."""
    for number in (15, 9):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number) if group else process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return
