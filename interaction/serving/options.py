"""The options of `launch.py serve`; nothing is imported for them, so that `--help` is quick.

In: an argument parser. Out: the parser with the options.
"""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    served = parser.add_mutually_exclusive_group(required=True)
    served.add_argument("--checkpoint", metavar="DIR", help="native checkpoint")
    served.add_argument("--artefact", metavar="DIR", help="of launch.py export, for this platform")
    parser.add_argument(
        "--lanes", type=int, metavar="N",
        help="sessions at once (default: 4; an artefact's are those that it was exported with)",
    )  # fmt: skip
    parser.add_argument(
        "--kernels", choices=("xla", "native"), default="xla",
        help="of a checkpoint: native computes on CPU in C++, compiled when it starts",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("float32", "bfloat16"), default="float32",
        help="of a checkpoint: what the stack's matrices are kept as; bfloat16 halves them",
    )  # fmt: skip
    parser.add_argument(
        "--cache", choices=("float32", "bfloat16"),
        help="of a checkpoint: what keys and values are kept as; bfloat16 halves a lane's memory "
        "(default: as its configuration says)",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: every address of the machine")
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="0: any that is free")
    parser.add_argument("--seed", type=int, default=0, help="of the noise, beside a session's id")
    parser.add_argument(
        "--drain-seconds", type=float, default=30.0, metavar="S",
        help="after SIGTERM, for the sessions that are running to end",
    )  # fmt: skip
    parser.add_argument(
        "--sigterm-status", type=int, default=0, metavar="N",
        help="exit status after SIGTERM; 75 asks a cluster to begin it again",
    )  # fmt: skip
    parser.add_argument(
        "--idle-seconds", type=float, default=60.0, metavar="S",
        help="a session that sends nothing for so long is ended",
    )  # fmt: skip
    parser.add_argument(
        "--compilation-cache", metavar="FOLDER", help="for compiled programs, or off (default: "
        "JAX_COMPILATION_CACHE_DIR, else the user's cache folder)",
    )  # fmt: skip
