"""What an exported artefact says about itself.

In: a folder made by `serving.export`. Out: its `Manifest`, checked against the files beside it
and against the running jax, or `ArtefactError` in one sentence. Nothing of the model is imported:
names, shapes and order of every array are in ``manifest.json`` (`docs/export.md` explains each
field for a server in another language).
"""

import dataclasses
import datetime
import enum
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it
import numpy as np

from interaction import configuration

FORMAT = "interaction-artefact"
VERSION = 2
FILE = "manifest.json"
# How long jax promises to read what an earlier release exported.
WINDOW_DAYS = 180


class ArtefactError(ValueError):
    """An artefact that cannot be run here; the message says why in one sentence."""


class Platform(enum.Enum):
    """What an artefact is compiled for; the value is jax's name in an export."""

    CPU = "cpu"
    CUDA = "cuda"
    TPU = "tpu"

    @property
    def backend(self) -> str:
        """jax's name of the backend that runs it."""
        return "gpu" if self is Platform.CUDA else self.value


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a calling convention.

    Attributes:
        name: path in its tree, joined by "/".
        dtype: numpy's name, or one that `ml_dtypes` adds to it.
        shape: of the array.
        lane_axis: which axis counts lanes; None: the array is shared by all lanes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    lane_axis: int | None = None

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    @property
    def nbytes(self) -> int:
        """Memory of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class File:
    """A file of the artefact and what its bytes hash to."""

    name: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled-on-load program.

    Attributes:
        name: for people and for `Manifest.program`.
        exported: serialised `jax.export.Exported`.
        stablehlo: the same program as a portable StableHLO artefact, for PJRT from any language.
        arguments: groups of arguments in calling order, of ``parameters``, ``state``, ``inputs``.
        results: groups of results in order, of ``state``, ``outputs``.
        inputs: leaves of the group ``inputs`` in calling order.
        kept: flat indices of the arguments that the StableHLO function takes (it leaves out those
            that do not matter to it).
        donated: flat indices of arguments whose memory is given to the results.
    """

    name: str
    exported: File
    stablehlo: File
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    inputs: tuple[Leaf, ...]
    kept: tuple[int, ...]
    donated: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Input sizes of one step program."""

    program: str
    slots: int
    patches: int


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What ids mean.

    Attributes:
        tokenizer: ``bytes``: ordinary ids are the bytes of UTF-8 text.
        ordinary: ids below are ordinary.
        controls: id of every control token.
        closers: control tokens that end a micro-turn's output.
        channels: control tokens that open text that is put out.
        text_sources: control tokens that open text that comes in.
        streams: value of the input `stream` for each kind of slot.
    """

    tokenizer: str
    ordinary: int
    controls: Mapping[str, int]
    closers: tuple[str, ...]
    channels: tuple[str, ...]
    text_sources: tuple[str, ...]
    streams: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Pinned:
    """What bounds system text, which typed memory keeps for ever.

    Attributes:
        leaf: the state's leaf that says what every place of a lane's store holds.
        value: its value for system text.
        limit: slots of system text that a lane takes at most.
    """

    leaf: str
    value: int
    limit: int


@dataclasses.dataclass(frozen=True)
class Made:
    """Where an artefact comes from.

    Attributes:
        date: of the export, ISO 8601.
        jax: release that exported it.
        calling_convention: version of jax's export format.
        checkpoint: name of the checkpoint's folder.
    """

    date: str
    jax: str
    calling_convention: int
    checkpoint: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All of ``manifest.json``.

    Attributes:
        format, version: what this file is.
        platform: what the programs are for.
        made: by what and when.
        lanes: B.
        experts: how expert weights are stored.
        parameter_files: safetensors, and their index where there are several.
        parameters, state, outputs: leaves in calling order.
        programs: ``fresh`` and ``admit`` make states, the others step them.
        buckets: step programs by size, smallest first.
        tokens: what ids mean.
        weave: sizes and limits of one micro-turn's input (`streams.layout.WeaveConfig`).
        pinned: the bound on system text; None: the memory's policy keeps none.
        sample_rate: of heard and spoken sound, per second.
        config: the whole model's configuration.
    """

    format: str
    version: int
    platform: Platform
    made: Made
    lanes: int
    experts: str
    parameter_files: tuple[File, ...]
    parameters: tuple[Leaf, ...]
    state: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    programs: tuple[Program, ...]
    buckets: tuple[Bucket, ...]
    tokens: Tokens
    weave: Mapping[str, int]
    pinned: Pinned | None
    sample_rate: int
    config: Mapping[str, Any]

    def program(self, name: str) -> Program:
        """The program of this name."""
        for program in self.programs:
            if program.name == name:
                return program
        raise ArtefactError(
            f"the artefact has no program {name!r}, only {[p.name for p in self.programs]}"
        )

    def group(self, program: Program, name: str) -> tuple[Leaf, ...]:
        """Leaves of a group of arguments or results of `program`."""
        if name == "inputs":
            return program.inputs
        if name not in ("parameters", "state", "outputs"):
            raise ArtefactError(f"program {program.name} names an unknown group {name!r}")
        return getattr(self, name)

    @property
    def bytes_of_state(self) -> int:
        """Memory of the state of all lanes."""
        return sum(leaf.nbytes for leaf in self.state)


# ---------------------------------------------------------------- files


def write_manifest(manifest: Manifest, folder: pathlib.Path) -> None:
    """Writes ``manifest.json``."""
    (folder / FILE).write_text(json.dumps(configuration.to_dict(manifest), indent=1) + "\n")


def read_manifest(folder: str | pathlib.Path) -> Manifest:
    """Reads and checks ``manifest.json``.

    Raises:
        ArtefactError: there is none, it cannot be read, or its version is unknown.
    """
    path = pathlib.Path(folder) / FILE
    if not path.is_file():
        raise ArtefactError(f"{folder} is no artefact: it has no {FILE}")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ArtefactError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise ArtefactError(f"{path} has format={found!r}, an artefact has {FORMAT!r}")
    if values.get("version") != VERSION:
        raise ArtefactError(
            f"{path} has version={values.get('version')!r}, this runtime reads version {VERSION}"
        )
    try:
        return configuration.build(Manifest, values, where="manifest")
    except (ValueError, TypeError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error


def file_of(folder: pathlib.Path, name: str) -> File:
    """`File` of a file that is there."""
    return File(name, _hash(folder / name))


def check_file(folder: str | pathlib.Path, file: File) -> pathlib.Path:
    """The path of `file`, whose bytes are as recorded.

    Raises:
        ArtefactError: it is missing, or its bytes hash to something else.
    """
    path = pathlib.Path(folder) / file.name
    if path.parent != pathlib.Path(folder):
        raise ArtefactError(f"the manifest names {file.name!r}, which is outside its folder")
    if not path.is_file():
        raise ArtefactError(f"{path} is missing, the manifest names it")
    found = _hash(path)
    if found != file.sha256:
        raise ArtefactError(
            f"{path} is not the file that was exported: sha256 {found[:12]}..., the manifest "
            f"says {file.sha256[:12]}..."
        )
    return path


def _hash(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- fit for this process


def check_platform(manifest: Manifest, backend: str) -> None:
    """Raises `ArtefactError` unless `backend` (``jax.default_backend()``) runs the artefact."""
    if manifest.platform.backend != backend:
        raise ArtefactError(
            f"the artefact was exported for platform={manifest.platform.value}, this process "
            f"runs on {backend}: export it again with --platform for {backend}"
        )


def check_age(
    made: Made, *, jax_version: str, conventions: range, today: datetime.date | None = None
) -> None:
    """Whether the running jax can be trusted to read what `made` describes.

    The same release always can. Another one must be newer, must know the calling convention, and
    jax promises to read exports for `WINDOW_DAYS` only.

    Args:
        made: of the manifest.
        jax_version: of the running jax.
        conventions: versions of the calling convention that it reads.
        today: date to compare with; None: the clock's.

    Raises:
        ArtefactError: it cannot; says which value is out of bounds.
    """
    if made.calling_convention not in conventions:
        raise ArtefactError(
            f"the artefact has calling convention {made.calling_convention}, jax {jax_version} "
            f"reads {conventions.start} to {conventions.stop - 1}: export it again"
        )
    if made.jax == jax_version:
        return
    if _release(made.jax) > _release(jax_version):
        raise ArtefactError(
            f"the artefact was exported by jax {made.jax}, newer than the running "
            f"jax {jax_version}: export it again or upgrade"
        )
    try:
        date = datetime.date.fromisoformat(made.date)
    except ValueError as error:
        raise ArtefactError(f"the manifest's date {made.date!r} is no date") from error
    age = ((today or datetime.date.today()) - date).days
    if age > WINDOW_DAYS:
        raise ArtefactError(
            f"the artefact was exported {age} days ago by jax {made.jax}, jax {jax_version} is "
            f"only promised to read exports of the last {WINDOW_DAYS} days: export it again"
        )


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version; what follows them (``.dev``) does not count."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
