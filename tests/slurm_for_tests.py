"""A SLURM of two nodes on this machine, without systemd: munge, one controller, two node daemons.

In: Debian's packages slurm-wlm and munge, and root. Out: a running cluster whose commands find it
through ``SLURM_CONF``. The names of its nodes have to resolve, because processes look for the first
node by name; lines are added to the hosts file for it and taken out again.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

NODES = ("smoke1", "smoke2")
CONTROLLER_PORT, NODE_PORT = 16817, 17001
HOSTS = pathlib.Path("/etc/hosts")
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "setpriv")


def missing() -> str:
    """Why there can be no SLURM here; "" if there can."""
    absent = [name for name in NEEDED if not (shutil.which(name) or _sbin(name).exists())]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    if os.getuid():
        return "starting SLURM's daemons needs root"
    return ""


def _sbin(name: str) -> pathlib.Path:
    return pathlib.Path("/usr/sbin") / name


def configuration(folder: pathlib.Path) -> str:
    """slurm.conf. A job that is requeued begins again after 5 s in place of two minutes
    (``cred_expire``); commands wait for a process that was killed for 5 s (``KillWait``)."""
    host = socket.gethostname().partition(".")[0]
    memory = 2000
    return f"""
ClusterName=smoke
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={CONTROLLER_PORT}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
JobRequeue=1
SlurmdTimeout=120
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
NodeName={",".join(NODES)} NodeHostname={host} NodeAddr=127.0.0.1 \
Port={NODE_PORT},{NODE_PORT + 1} CPUs=1 RealMemory={memory}
PartitionName=debug Nodes={",".join(NODES)} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


@contextlib.contextmanager
def two_nodes(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """The cluster, up; gives the environment in which its commands work.

    Args:
        folder: for its files; made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    place = folder / "slurm.conf"
    place.write_text(configuration(folder))
    environment = {**os.environ, "SLURM_CONF": str(place)}
    environment["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin"
    hosts = HOSTS.read_text()
    HOSTS.write_text(hosts.rstrip("\n") + f"\n127.0.0.1 {' '.join(NODES)}  # two_nodes\n")
    daemons: list[subprocess.Popen] = []

    def start(*words: str) -> None:
        with (folder / "daemons.log").open("ab") as log:
            daemons.append(
                subprocess.Popen(
                    words, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            )

    try:
        if not _munge_answers():
            _prepare_munge()
            start(
                "setpriv", "--reuid=munge", "--regid=munge", "--clear-groups",
                str(_sbin("munged")), "--foreground", "--force",
            )  # fmt: skip
            _until(_munge_answers, "munge answers")
        start(str(_sbin("slurmctld")), "-D", "-c")
        for node in NODES:
            start(str(_sbin("slurmd")), "-D", "-N", node)

        def idle() -> bool:
            said = subprocess.run(
                ["sinfo", "-h", "-o", "%D %t"], env=environment, capture_output=True, text=True
            )
            return said.stdout.strip() == f"{len(NODES)} idle"

        _until(idle, "both nodes are idle")
        yield environment
    finally:
        subprocess.run(["scancel", "--state=RUNNING"], env=environment, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            if daemon.poll() is None:
                daemon.kill()
        kept = [x for x in HOSTS.read_text().splitlines(True) if not x.endswith("# two_nodes\n")]
        HOSTS.write_text("".join(kept))


def _munge_answers() -> bool:
    return subprocess.run(["munge", "-n"], capture_output=True).returncode == 0


def _prepare_munge() -> None:
    """Folders and key as munge wants them; packages leave this to systemd."""
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    pathlib.Path("/run/munge").chmod(0o755)
    key = pathlib.Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
    shutil.chown(key, "munge", "munge")
    key.chmod(0o400)


def _until(condition, what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s it is still not so that {what}")
        time.sleep(0.2)
