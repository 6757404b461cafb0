"""The safetensors file format, one piece of one tensor at a time.

In: a path. Out: `Reader`, which reads a tensor, some of its rows or a box of it with plain file
reads, and `Writer`, which lays out a whole file first and then takes pieces in any order. Neither
ever holds more than the piece at hand, and neither maps memory, so peak memory is what the caller
asks for.
The format: 8 bytes of header length, a JSON header, the tensors' bytes (huggingface/safetensors).
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LARGEST_HEADER = 100_000_000  # bytes, the limit of the reference implementation
PIECE_BYTES = 32 * 2**20  # a transposed view is written in pieces of about this size
PAGE_BYTES = 4096  # storage hands out no less: shorter runs are read together with what is between


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit its configuration."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Type and shape of a stored tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows_per(self, limit: int) -> int:
        """How many rows of the first axis fit `limit` bytes; at least one."""
        row = max(1, self.nbytes // max(1, self.shape[0] if self.shape else 1))
        return max(1, limit // row)


class Reader:
    """One safetensors file, open for reading.

    Attributes:
        path: of the file.
        tensors: name -> `TensorInfo`.
        offsets: name -> first byte in the file.
        metadata: the header's free text entries.
        bytes_read: of tensors, so far.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.bytes_read = 0
        self._file = open(self.path, "rb")  # noqa: SIM115 (closed by close)
        try:
            self._parse()
        except BaseException:
            self._file.close()
            raise

    def _parse(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _LARGEST_HEADER):
            raise CheckpointError(
                f"{self.path}: header of {length} bytes in a file of {size}: not safetensors"
            )
        try:
            header = json.loads(self._file.read(length))
        except ValueError as error:
            raise CheckpointError(f"{self.path}: header is not JSON: {error}") from error
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self.tensors: dict[str, TensorInfo] = {}
        self.offsets: dict[str, int] = {}
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                raise CheckpointError(
                    f"{self.path}: {name} has dtype {entry['dtype']}; known are {sorted(DTYPES)}"
                )
            info = TensorInfo(DTYPES[entry["dtype"]], tuple(entry["shape"]))
            start, stop = entry["data_offsets"]
            if stop - start != info.nbytes:
                raise CheckpointError(
                    f"{self.path}: {name} {info.dtype}{info.shape} needs {info.nbytes} bytes, "
                    f"the header gives it {stop - start}"
                )
            if 8 + length + stop > size:
                raise CheckpointError(
                    f"{self.path}: {name} ends at byte {8 + length + stop} of a file of {size}: "
                    "the file is cut short"
                )
            self.tensors[name] = info
            self.offsets[name] = 8 + length + start

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows ``start:stop`` of the first axis of a tensor (all of it by default)."""
        info = self.tensors[name]
        shape = info.shape
        offset = self.offsets[name]
        if shape and (start or stop is not None):
            stop = shape[0] if stop is None else stop
            row = info.nbytes // max(1, shape[0])
            shape = (stop - start, *shape[1:])
            offset += start * row
        return self._read_at(name, offset, shape)

    def read_rows(self, name: str, index: int, start: int, stop: int) -> np.ndarray:
        """``tensor[index, start:stop]``."""
        info = self.tensors[name]
        inner = info.shape[1:]
        row = info.dtype.itemsize * math.prod(inner[1:])
        first = self.offsets[name] + (index * inner[0] + start) * row
        return self._read_at(name, first, (stop - start, *inner[1:]))

    def _read_at(self, name: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        out = np.empty(shape, self.tensors[name].dtype)
        self._fill(name, out, offset)
        return out

    def read_box(self, name: str, box: tuple[slice, ...]) -> np.ndarray:
        """``tensor[box]``: of every axis, from `start` to `stop`.

        Only what is asked for is read where it lies in runs of `PAGE_BYTES` or more; shorter runs
        are read with the gaps between them, in pieces of `PIECE_BYTES` at most.
        """
        info = self.tensors[name]
        out = np.empty([s.stop - s.start for s in box], info.dtype)
        cut = [a for a, (s, n) in enumerate(zip(box, info.shape, strict=True)) if out.shape[a] < n]
        axis = max(cut, default=0)  # everything behind this axis lies together
        if not out.size:
            return out
        size = info.dtype.itemsize
        strides = [math.prod(info.shape[a + 1 :]) * size for a in range(out.ndim)]
        first = self.offsets[name] + sum(s.start * n for s, n in zip(box, strides, strict=True))
        if axis == 0:
            self._fill(name, out, first)
            return out
        row, run = strides[axis - 1], out.shape[axis] * strides[axis]
        count = out.shape[axis - 1]
        step = 1 if run >= PAGE_BYTES else max(1, min(count, PIECE_BYTES // row))
        buffer = np.empty(((step - 1) * row + run) // size, info.dtype)
        flat = out.reshape(*out.shape[:axis], run // size)
        for outer in np.ndindex(out.shape[: axis - 1]):
            begin = first + sum(i * n for i, n in zip(outer, strides, strict=False))
            for start in range(0, count, step):
                rows = min(step, count - start)
                piece = buffer[: ((rows - 1) * row + run) // size]
                self._fill(name, piece, begin + start * row)
                seen = np.lib.stride_tricks.as_strided(piece, (rows, run // size), (row, size))
                flat[outer][start : start + rows] = seen
        return out

    def _fill(self, name: str, out: np.ndarray, offset: int) -> None:
        """Bytes of the file from `offset` into a contiguous array."""
        view, done = memoryview(out.reshape(-1).view(np.uint8)), 0
        while done < out.nbytes:  # one call of the system reads 2 GiB at most
            count = os.preadv(self._file.fileno(), [view[done:]], offset + done)
            if not count:
                raise CheckpointError(f"{self.path}: {name}: read {done} bytes of {out.nbytes}")
            done += count
        self.bytes_read += done

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer:
    """A safetensors file of known layout, filled in pieces; `close` checks that all is there."""

    def __init__(
        self,
        path: Path | str,
        layout: Mapping[str, TensorInfo],
        metadata: Mapping[str, str] | None = None,
    ):
        self.path = Path(path)
        self.layout = dict(layout)
        header: dict = {"__metadata__": dict(metadata)} if metadata else {}
        # Wide types first, so that every tensor starts at a multiple of its own item size.
        order = sorted(layout, key=lambda name: (-layout[name].dtype.itemsize, name))
        position, starts = 0, {}
        for name in order:
            info = layout[name]
            starts[name] = position
            header[name] = {
                "dtype": _NAMES[info.dtype],
                "shape": list(info.shape),
                "data_offsets": [position, position + info.nbytes],
            }
            position += info.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._starts = {name: 8 + len(text) + start for name, start in starts.items()}
        self._missing = {name: info.nbytes for name, info in layout.items()}
        self._file = open(self.path, "wb")  # noqa: SIM115 (closed by close)
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(8 + len(text) + position)

    def write(self, name: str, values: np.ndarray, index: tuple[int, ...] = ()) -> None:
        """Put `values` at ``tensor[index[0], ..., index[-1] : index[-1] + n]`` or fill it.

        Args:
            name: of the tensor.
            values: its tail axes equal the tensor's; any memory layout, written in pieces.
            index: where it goes. With as many axes left as `values` has, one block; with one
                axis fewer indexed than that, `values` begins at row ``index[-1]``.
        """
        info = self.layout[name]
        if values.dtype != info.dtype:
            raise CheckpointError(f"{name}: values are {values.dtype}, the file has {info.dtype}")
        fixed = len(info.shape) - values.ndim
        tail = info.shape[fixed:]
        whole = len(index) == fixed
        fits = values.shape == tail if whole else values.shape[1:] == tail[1:]
        if not fits or len(index) not in (fixed, fixed + 1):
            raise CheckpointError(
                f"{name}: {values.shape} at {index} does not fit a tensor of {info.shape}"
            )
        strides = [math.prod(info.shape[axis + 1 :]) for axis in range(len(info.shape))]
        first = sum(i * stride for i, stride in zip(index, strides, strict=False))
        self._file.seek(self._starts[name] + first * info.dtype.itemsize)
        rows = TensorInfo(info.dtype, values.shape).rows_per(PIECE_BYTES)
        if values.ndim == 0:
            values, rows = values.reshape(1), 1
        for start in range(0, values.shape[0], rows):
            piece = np.ascontiguousarray(values[start : start + rows])
            self._file.write(piece.reshape(-1).view(np.uint8))
        self._missing[name] -= values.nbytes

    def close(self) -> None:
        """Flush to disk; raises if some tensor was not written in full."""
        try:
            missing = {name: count for name, count in self._missing.items() if count}
            if missing:
                raise CheckpointError(f"{self.path}: bytes never written: {missing}")
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
