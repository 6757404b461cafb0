"""Recordings with their texts from a folder that TFDS prepared, without TensorFlow.

In: ``DATA_DIR/NAME[/CONFIG]/VERSION`` as `tfds build NAME --file_format=array_record` leaves it.
Out: random access to its examples: samples, their rate, a text. The features are read from the
folder's own ``features.json`` and the records parsed here, because TFDS 4.9.10 makes its `Audio`
feature with TensorFlow even where `tfds.data_source` only reads.
"""

import dataclasses
import functools
import io
import json
import os
import pathlib
import re
import zlib
from typing import Any

import numpy as np
import soundfile
from array_record.python.array_record_data_source import ArrayRecordDataSource

_TEXTS = "text_normalized normalized_text text transcription transcript sentence label".split()
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True)
class Example:
    """A recording: float32 mono `samples` ``[W]`` at `rate`, and its text."""

    samples: np.ndarray
    rate: int
    text: str


@dataclasses.dataclass(frozen=True)
class TfdsFolder:
    """Random access to the examples of one split.

    Attributes:
        folder: of one version.
        split: its name.
        audio: feature that holds the sound; "": the only one that does.
        text: feature that holds the text (for a class, its name); "": the first of the usual names.
    """

    folder: str
    split: str = "train"
    audio: str = ""
    text: str = ""

    def __len__(self) -> int:
        return len(_opened(self).records)

    def __getitem__(self, index: int) -> Example:
        found = _opened(self)
        fields = _parse(found.records[int(index)])
        samples, rate = _samples(fields[found.audio], found.features[found.audio]["audio"])
        return Example(samples, rate, _text(fields[found.text], found.names))

    def check(self) -> None:
        """Raises ValueError or FileNotFoundError where the folder cannot be read."""
        _opened(self)


def locate(name: str, data_dir: str | None = None) -> pathlib.Path:
    """The folder of the newest version of a data set.

    Args:
        name: of the data set, ``NAME`` or ``NAME/CONFIG``.
        data_dir: where TFDS keeps its data sets; None: ``TFDS_DATA_DIR``, else
            ``~/tensorflow_datasets``.

    Raises:
        FileNotFoundError: it is not there; says how it gets there.
    """
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = pathlib.Path(data_dir).expanduser() / name
    found = [p for p in root.glob("*") if _VERSION.fullmatch(p.name) and p.is_dir()]
    if not found:
        configs = sorted(p.parent.parent.name for p in root.glob("*/*/features.json"))
        hint = f"it has the configs {', '.join(configs)}: name one as {name}/CONFIG"
        raise FileNotFoundError(
            f"{root} holds no version of {name}; "
            + (hint if configs else "prepare it where TensorFlow is installed: ")
            + ("" if configs else f"tfds build {name} --file_format=array_record --data_dir=...")
        )
    return max(found, key=lambda path: [int(part) for part in path.name.split(".")])


# ---------------------------------------------------------------- the folder


@dataclasses.dataclass(frozen=True)
class _Opened:
    features: dict[str, dict]
    audio: str
    text: str
    names: tuple[str, ...]
    records: ArrayRecordDataSource


@functools.lru_cache(maxsize=4)
def _opened(wanted: TfdsFolder) -> _Opened:
    folder = pathlib.Path(wanted.folder)
    path = folder / "features.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: {folder} is no data set that TFDS prepared")
    values = json.loads(path.read_text())
    features = values.get("featuresDict", {}).get("features", {})
    audio = _chosen(wanted.audio, [n for n, f in features.items() if "audio" in f], features)
    usual = [name for name in _TEXTS if name in features][:1]
    text = _chosen(wanted.text, usual, features)
    names = folder / f"{text}.labels.txt"
    files = sorted(folder.glob(f"*-{wanted.split}.array_record-*-of-*"))
    if not files:
        there = sorted({p.name.split(".")[0] for p in folder.glob("*-of-*")})
        formats = sorted({p.name.split(".")[1].split("-")[0] for p in folder.glob("*-of-*")})
        raise FileNotFoundError(
            f"{folder} has no split {wanted.split!r} in ArrayRecord; it has {there} in {formats}"
        )
    return _Opened(
        features=features,
        audio=audio,
        text=text,
        names=tuple(names.read_text().split("\n")) if names.is_file() else (),
        records=ArrayRecordDataSource([str(file) for file in files]),
    )


def _chosen(wanted: str, usual: list[str], features: dict) -> str:
    if wanted and wanted not in features:
        raise ValueError(f"there is no feature {wanted!r}; its features are {sorted(features)}")
    if not wanted and len(usual) != 1:
        raise ValueError(f"name the feature: of {sorted(features)}, {usual} could be meant")
    return wanted or usual[0]


def _parse(record: bytes) -> dict[str, Any]:
    """Values of every feature of a serialised `tf.train.Example`."""
    from tensorflow_datasets.proto import tf_example_pb2  # slow to import

    example = getattr(tf_example_pb2, "Example")  # noqa: B009 (made when it is imported)
    found = example.FromString(record).features.feature
    return {
        name: getattr(feature, kind).value
        for name, feature in found.items()
        if (kind := feature.WhichOneof("kind"))
    }


def _samples(values, feature: dict) -> tuple[np.ndarray, int]:
    """Mono samples and their rate, whichever way TFDS keeps them."""
    if feature.get("lazyDecode"):
        samples, rate = soundfile.read(io.BytesIO(values[0]), dtype="float32", always_2d=True)
        return samples.mean(axis=1), int(rate)
    rate = int(feature.get("sampleRate", 0))
    if rate <= 0:
        raise ValueError("its features.json gives no sampleRate for the sound")
    dtype = np.dtype(feature.get("dtype") or "int64")
    encoding = feature.get("encoding", "none")
    if encoding == "none":
        raw = np.array(values, dtype)
    elif encoding in ("bytes", "zlib"):
        raw = np.frombuffer(zlib.decompress(values[0]) if encoding == "zlib" else values[0], dtype)
    else:
        raise ValueError(f"encoding={encoding!r} of the sound is not read")
    channels = [int(size) for size in feature.get("shape", {}).get("dimensions", [])][1:]
    mono = raw.reshape(-1, *channels).astype(np.float32)
    mono = mono.mean(axis=1) if channels else mono
    # Whole numbers are 16-bit samples, whatever type they are kept in.
    return mono if dtype.kind == "f" else mono / np.float32(32_768), rate


def _text(values, names: tuple[str, ...]) -> str:
    value = values[0]
    if isinstance(value, bytes):
        return value.decode()
    return names[value] if names else str(value)
