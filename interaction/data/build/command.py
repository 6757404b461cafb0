"""`launch.py data build`: from recordings, a curriculum or a TFDS name to a finished set of shards.

In: the options of the command and a listener. Out: a folder that `TrainConfig.shards` reads; on the
terminal a progress bar, what the set holds, and every input that was left out with its reason.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from interaction import configuration
from interaction.data.build.folder import FolderPlan, find
from interaction.data.build.generated import GeneratedPlan
from interaction.data.build.known import KNOWN, Known, Use
from interaction.data.build.tfds_plan import TfdsPlan
from interaction.data.build.words import Listener
from interaction.data.clips import Split
from interaction.data.config import DataConfig
from interaction.data.curriculum.sessions import CurriculumConfig
from interaction.data.shards.rows import RowSizes
from interaction.data.shards.write import Manifest, Part, Plan, write
from interaction.data.tfds_folder import TfdsFolder, locate
from interaction.microturn import MICRO_TURN_SECONDS

type ReadConfig = Callable[[str], dict[str, Any]]


def run(
    options: argparse.Namespace, *, listener: Listener, read_config: ReadConfig
) -> Manifest | None:
    """Make what was asked for.

    Args:
        options: of `options.add_options`.
        listener: finds words that nobody wrote down.
        read_config: from the place of a configuration file to its values.

    Returns:
        The finished set, or None while other parts are missing.

    Raises:
        FileNotFoundError, ValueError: what was asked for cannot be made.
    """
    plan = _plan(options, listener, read_config)
    index, _, count = options.part.partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise ValueError(f"--part {options.part}: write it as I/N, counted from 0")
    if options.processes < 1:
        raise ValueError(f"--processes {options.processes} must be at least 1")
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[sessions]} sessions"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("inputs", total=plan.inputs, sessions=0)
        total = 0

        def advance(inputs: int, sessions: int) -> None:
            nonlocal total
            total += sessions
            progress.update(bar, advance=inputs, sessions=total)

        manifest = write(
            plan, options.out, part=Part(int(index), int(count)), processes=options.processes,
            advance=advance,
        )  # fmt: skip
    print(told(manifest, options.out))
    return manifest


def told(manifest: Manifest | None, folder: str | os.PathLike) -> str:
    """What to say at the end."""
    if manifest is None:
        return f"{folder}: this part is done; the set is finished when the other parts are"
    hours = manifest.micro_turns * MICRO_TURN_SECONDS / 3600
    spoken = manifest.spoken / max(1, manifest.micro_turns)
    lines = [
        f"{folder}: {manifest.sessions} sessions, {hours:.2f} hours, {len(manifest.files)} shards",
        f"slots filled: {manifest.filled:.1%} of {manifest.rows.slots} per row; the model speaks "
        f"in {spoken:.1%} of the micro-turns",
    ]
    if manifest.failures:
        lines.append(f"{len(manifest.failures)} inputs were left out:")
        lines += [f"  {failure.input}: {failure.error}" for failure in manifest.failures]
    return "\n".join(lines)


# ---------------------------------------------------------------- what is asked for


def _plan(options: argparse.Namespace, listener: Listener, read_config: ReadConfig) -> Plan:
    per_shard = {} if options.per_shard is None else {"inputs_per_shard": options.per_shard}
    if options.per_shard is not None and options.per_shard < 1:
        raise ValueError(f"--per-shard {options.per_shard} must be at least 1")
    if options.curriculum:
        if options.row:
            raise ValueError(f"--row {options.row[0]}: the sizes are those of {options.curriculum}")
        known = [split.value for split in Split]
        if options.split not in known:
            raise ValueError(f"--split {options.split}: a curriculum has {', '.join(known)}")
        config = generated_config(read_config(options.curriculum))
        return GeneratedPlan(config, Split(options.split), options.sessions, **per_shard)
    sizes = row_sizes(options.row)
    if options.folder:
        folder = os.path.abspath(options.folder)
        return FolderPlan(folder, tuple(find(folder)), listener, sizes, **per_shard)
    known = KNOWN.get(options.tfds.split("/")[0], Known("", ""))
    folder = TfdsFolder(
        str(locate(options.tfds, options.data_dir)), options.split,
        options.audio or known.audio, options.text or known.text,
    )  # fmt: skip
    folder.check()
    use = Use(options.use) if options.use else known.use
    return TfdsPlan(folder, use, listener, sizes, **per_shard)


def generated_config(values: Mapping[str, Any]) -> CurriculumConfig | DataConfig:
    """The sessions of a training configuration that are made on the fly."""
    for name, kind in (("curriculum", CurriculumConfig), ("data", DataConfig)):
        if values.get(name) is not None:
            return configuration.build(kind, values[name], where=name)
    raise ValueError("the configuration has neither curriculum nor data")


def row_sizes(given: list[str]) -> RowSizes:
    """Sizes from ``NAME=N``, the defaults for what is not named."""
    values = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not equals or not number.isdigit():
            raise ValueError(f"--row {text}: write it as NAME=N")
        values[name] = int(number)
    return configuration.build(RowSizes, values, where="--row")
