"""The options of `launch.py submit`; nothing is imported for them, so that `--help` is quick.

In: an argument parser. Out: the parser with the options.
"""

import argparse
import sys


def add_options(parser: argparse.ArgumentParser, *, root: str) -> None:
    """The options of the command; `root` is the folder of `launch.py` here."""
    parser.add_argument("--on", choices=("slurm", "local", "jobset", "skypilot"), required=True)
    parser.add_argument("--dry-run", action="store_true", help="print everything, touch nothing")
    parser.add_argument("--through", choices=("sbatch", "submitit"), default="sbatch", help="SLURM")
    parser.add_argument("--name", help="of the job (default: the command's)")
    for name, value, text in (
        ("nodes", 1, "machines"),
        ("tasks", 1, "processes per machine"),
        ("cpus", 1, "cores per process"),
        ("memory", 0, "GB per machine (default: the site's)"),
        ("per-node", 0, "accelerators per machine"),
        (
            "minutes",
            60,
            "limit of time; a training that reaches it saves and is requeued, a server too",
        ),
        ("restarts", 3, "times to begin again what was killed (a server: what failed, too)"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=text)
    for name, value, text in (
        ("accelerator", "", "its kind, by the target's own name for it"),
        ("topology", "", "of a TPU slice on GKE, as in 4x4"),
        ("queue", "", "SLURM's partition, or Kueue's queue"),
        ("account", "", "who pays, on SLURM"),
        ("image", "", "container with this environment (JobSet, SkyPilot)"),
        ("python", sys.executable, "interpreter where the job runs"),
        ("root", root, "this folder where the job runs"),
        ("logs", "runs/logs", "folder for what processes print, from --root"),
    ):
        parser.add_argument(f"--{name}", default=value, help=text)
    parser.add_argument(
        "--volume", action="append", default=[], metavar="SOURCE=PATH",
        help="a claim (JobSet) or a bucket (SkyPilot) and where the run finds it; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--sweep", action="append", default=[], metavar="A.B=V,V",
        help="one run per value of a field of the training's configuration, as an array; repeated:"
        " all combinations",
    )  # fmt: skip
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
