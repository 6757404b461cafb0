"""The options of `launch.py data build`; nothing heavy is imported for them.

In: an argument parser. Out: the parser with the options that `command.run` reads.
"""

import argparse

from interaction.data.build.known import KNOWN, Use


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="folder", metavar="DIR", help="stereo recordings, left the user and right "
        "the model;\nNAME.json, NAME.rttm or NAME.TextGrid beside one: times of its words",
    )  # fmt: skip
    source.add_argument(
        "--curriculum", metavar="CONFIG", help="sessions of a configuration file, configs/mini.py"
    )
    source.add_argument(
        "--tfds", metavar="NAME", help=f"a data set that TFDS prepared: {', '.join(KNOWN)}, or "
        "another with sound and text",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the shards")
    parser.add_argument("--processes", type=int, default=1, help="that make shards side by side")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="make every N-th shard alone")
    parser.add_argument("--per-shard", type=int, metavar="N", help="inputs in one shard")
    parser.add_argument(
        "--row", action="append", default=[], metavar="NAME=N", help="--from, --tfds: a size of "
        "the rows that sessions are cut for,\nas in RowSizes: slots=1200; may be repeated",
    )  # fmt: skip
    parser.add_argument("--sessions", type=int, default=4096, help="--curriculum: how many")
    parser.add_argument(
        "--split", default="train", help="--curriculum: train or test; --tfds: its name there"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="--tfds: where TFDS keeps its data sets (default: "
        "TFDS_DATA_DIR,\nelse ~/tensorflow_datasets)",
    )  # fmt: skip
    parser.add_argument("--audio", default="", metavar="FEATURE", help="--tfds: holds the sound")
    parser.add_argument("--text", default="", metavar="FEATURE", help="--tfds: holds the text")
    parser.add_argument(
        "--use", choices=[use.value for use in Use], help="--tfds: heard: the model writes it "
        "down;\nread: the user types the text, the model says it",
    )  # fmt: skip
