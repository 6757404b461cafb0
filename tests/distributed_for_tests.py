"""Four processes of `jax.distributed` on this machine.

In: a Python program and its arguments. Out: what each process prints last, as JSON. The program
finds the port and its number in ``sys.argv[1:3]``.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

PROCESSES = 4
ROOT = pathlib.Path(__file__).parents[1]


def run_processes(program: str, *arguments: object) -> list[dict]:
    """The report of each process; one that fails takes the others with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed is given back at once
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(port), str(number), *map(str, arguments)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        while any(p.poll() is None for p in running) and not any(p.poll() for p in running):
            time.sleep(0.1)
    finally:
        for process in running:
            process.kill()
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES
    return [json.loads(text.splitlines()[-1]) for text in said]
