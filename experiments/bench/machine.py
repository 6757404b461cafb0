"""What a bench ran on: facts of the machine, versions, threads, and who else was busy.

In: nothing. Out: a dict for the JSON beside each script.
"""

import datetime
import importlib.metadata
import os
import pathlib
import platform


def processor() -> dict[str, str]:
    """Model and caches of the processor, as Linux tells them."""
    found = {"model": platform.processor() or platform.machine()}
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "cpu family", "model", "cpu MHz", "cache size"):
                found.setdefault("cpu " + name.strip().removeprefix("cpu "), value.strip())
            if name.strip() == "flags":
                known = ("avx2", "fma", "avx512f", "amx_bf16")
                found["vectors"] = " ".join(flag for flag in known if flag in value.split())
    for place in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (place / "type").read_text().strip()
        level = (place / "level").read_text().strip()
        found[f"L{level} {kind.lower()}"] = (place / "size").read_text().strip()
    return found


def last_cache() -> int:
    """Bytes of the processor's last cache; 32 MiB where it does not tell."""
    sizes = [value for name, value in processor().items() if name.startswith("L") and "K" in value]
    return max((int(size.rstrip("K")) * 1024 for size in sizes), default=32 << 20)


def facts(*, packages: tuple[str, ...] = ("jax", "jaxlib", "numpy")) -> dict:
    """Machine, versions, threads, and the load when the bench began."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": processor(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "threads": 1,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
    }
