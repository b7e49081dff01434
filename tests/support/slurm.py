"""A real Slurm cluster on this machine, with accounts: two nodes with one kind of GPU each, which are device files."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "slurmdbd", "sacctmgr", "sbatch", "mariadbd", "mariadb-install-db")

CONF = """\
ClusterName=trtbuildtest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmctldTimeout=30
SlurmdTimeout=5
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MessageTimeout=20
KillWait=2
InactiveLimit=0
MinJobAge=300
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge/munge.sock
AccountingStorageTRES=gres/gpu
"""
DBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
PidFile={folder}/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
"""
# Slurm gives a job the environment that this prints: so each node has the GPU that its name says.
PROLOG = """\
#!/bin/sh
echo "export TRTBUILD_NVML_FACTS={recorded}/${{SLURMD_NODENAME#gpu-}}.txt"
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster. Its commands find it by `env`."""

    folder: Path
    env: Mapping[str, str]

    def command(self, *words: str) -> str:
        done = subprocess.run(words, env={**os.environ, **self.env}, capture_output=True, text=True, check=True)
        return done.stdout

    def queue(self) -> list[str]:
        """The ids of jobs that wait or run."""
        return self.command("squeue", "--noheader", "--array", "--format=%i").split()

    def running(self, state: str = "RUNNING") -> dict[str, str]:
        """job -> node, of those that run."""
        text = self.command("squeue", "--noheader", "--array", "--format=%i %N", f"--states={state}")
        return dict(line.split() for line in text.splitlines() if len(line.split()) == 2)

    def nodes_of(self, name: str) -> set[str]:
        """Where the jobs of that name ran, by Slurm's accounts."""
        text = self.command(
            "sacct", "--noheader", "--parsable2", "--allocations", f"--name={name}", "--format=NodeList"
        )
        return set(text.split())

    def heal(self, node: str) -> None:
        """Let a node that was down work again; it may have come back by itself."""
        words = ["scontrol", "update", f"nodename={node}", "state=resume"]
        subprocess.run(words, env={**os.environ, **self.env}, capture_output=True, check=False)
        wait_for(lambda: self.command("sinfo", "-h", "-n", node, "-o", "%T").split()[0] == "idle")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@contextmanager
def cluster(folder: Path, recorded: Path, gpus: tuple[str, str]) -> Iterator[Cluster]:
    """Nodes gpu-NAME with one GPU of type NAME each; `recorded` has what NVML says of it, NAME.txt."""
    missing = [name for name in NEEDED if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]
    if missing:
        pytest.skip(f"no Slurm: {', '.join(missing)} not installed (slurm-wlm munge slurmdbd mariadb-server-core)")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons and its device files need root")
    _configure(folder, recorded, gpus)
    env = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    made = Cluster(folder, env)
    database: subprocess.Popen[bytes] | None = None
    try:
        database = _start(made, gpus)
        yield made
    finally:
        for name in (
            "slurmd-gpu-" + gpus[0],
            "slurmd-gpu-" + gpus[1],
            "slurmctld",
            "slurmdbd",
            "munge/munged",
        ):
            _end(folder / f"{name}.pid")
        if database is not None:
            database.terminate()
            database.wait(20)


def _configure(folder: Path, recorded: Path, gpus: tuple[str, str]) -> None:
    folder.chmod(0o755)
    for name in ("state", "log", "dev", "munge"):
        (folder / name).mkdir()
    (folder / "munge").chmod(0o711)
    ctld, dbd, *slurmd = free_ports(2 + len(gpus))
    values = {"folder": folder, "host": socket.gethostname().partition(".")[0], "ctld": ctld, "dbd": dbd}
    conf, gres = CONF.format(**values), "AutoDetect=off\n"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
    for at, (gpu, port) in enumerate(zip(gpus, slurmd, strict=True)):
        device = folder / "dev" / f"gpu{at}"
        os.mknod(device, 0o20666, os.makedev(1, 3))  # a clone of /dev/null: Slurm wants a character device
        conf += (
            f"NodeName=gpu-{gpu} NodeHostname={values['host']} NodeAddr=127.0.0.1 Port={port} CPUs={os.cpu_count()} "
            f"RealMemory={memory} Gres=gpu:{gpu}:1 Feature={gpu} State=UNKNOWN\n"
            f"PartitionName={gpu} Nodes=gpu-{gpu} MaxTime=1-0 State=UP\n"
        )
        gres += f"NodeName=gpu-{gpu} Name=gpu Type={gpu} File={device}\n"
    conf += f"PartitionName=all Nodes=gpu-{gpus[0]},gpu-{gpus[1]} Default=YES MaxTime=1-0 State=UP\n"
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(gres)
    (folder / "slurmdbd.conf").write_text(DBD.format(**values))
    (folder / "slurmdbd.conf").chmod(0o600)
    (folder / "prolog").write_text(PROLOG.format(recorded=recorded))
    (folder / "prolog").chmod(0o755)
    (folder / "munge" / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge" / "munge.key").chmod(0o600)


def _start(made: Cluster, gpus: tuple[str, str]) -> subprocess.Popen[bytes]:
    folder, munge = made.folder, made.folder / "munge"
    names = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "seed"}
    options = [f"--{name}={munge / file}" for name, file in names.items()]
    made.command("munged", "--force", *options, f"--log-file={folder / 'log' / 'munged.log'}")
    data = [f"--datadir={folder / 'db'}", "--user=root"]
    login = ["--auth-root-authentication-method=normal", "--skip-test-db"]
    made.command("mariadb-install-db", "--no-defaults", *data, *login)
    socket_file = folder / "mysql.sock"
    small = ["--skip-networking", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
    with (folder / "log" / "mariadb.log").open("wb") as log:
        database = subprocess.Popen(
            ["mariadbd", "--no-defaults", *data, f"--socket={socket_file}", *small],
            env={**os.environ, **made.env},
            stdout=log,
            stderr=log,
        )
    wait_for(socket_file.exists)
    env = {**os.environ, **made.env, "MYSQL_UNIX_PORT": str(socket_file)}
    subprocess.run(["slurmdbd"], env=env, check=True)
    wait_for(
        lambda: (
            subprocess.run(
                ["sacctmgr", "-i", "add", "cluster", "trtbuildtest"], env=env, capture_output=True
            ).returncode
            == 0
        )
    )
    made.command("slurmctld", "-c")
    for gpu in gpus:
        made.command("slurmd", "-N", f"gpu-{gpu}")
    wait_for(lambda: set(made.command("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"})
    return database


def _end(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return  # it has ended
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        until = time.monotonic() + 10
        while time.monotonic() < until and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
