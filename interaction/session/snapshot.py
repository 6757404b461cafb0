"""A session at rest: one lane's state between two micro-turns, in memory or in a file.

In: a lane's `SessionState` and what the host keeps beside it. Out: `Snapshot`, which goes on bit
for bit when it is put back, here or in another process. A file is safetensors, one array per leaf
of the state, with the rest as JSON in its header.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from interaction import configuration
from interaction.models.config import InteractionConfig
from interaction.session.state import SessionState
from interaction.types import Control, TextIn

_FORM = 1
_WHOLE = 1 << 22  # leaves up to this size are fetched whole: slicing compiles a program


def fingerprint(params: dict, config: InteractionConfig) -> str:
    """Tells parameters and configurations apart.

    Leaves up to `_WHOLE` numbers count whole; of larger ones the first and last rows of the first
    axis, and a few numbers of each.
    """
    described = configuration.to_dict(config)
    del described["cache_type"]  # a snapshot's arrays tell it
    text = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf.size <= _WHOLE:
            flat = np.asarray(leaf)
        else:
            few = (slice(0, 8),) * (leaf.ndim - 1)
            flat = np.stack([np.asarray(leaf[0][few]), np.asarray(leaf[-1][few])])
        text.update(f"{jax.tree_util.keystr(path)}{leaf.shape}{leaf.dtype}".encode())
        text.update(flat.tobytes())
    return text.hexdigest()[:16]


def _plain(leaf) -> np.ndarray:
    """A leaf on the host; a key as its numbers."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.array(leaf)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One session.

    Attributes:
        arrays: leaves of its `SessionState` of one lane by path.
        fingerprint: of the parameters and the configuration it was taken with.
        reader: where its text channels stand (`ChannelReader.state`).
        waiting: system text that has not been fed yet.
        pinned: slots of system text fed so far.
        forgotten: text slots that gave way so far.
    """

    arrays: dict[str, np.ndarray]
    fingerprint: str
    reader: dict
    waiting: tuple[TextIn, ...] = ()
    pinned: int = 0
    forgotten: int = 0

    @classmethod
    def of(cls, state: SessionState, **rest) -> "Snapshot":
        """The snapshot of a state of one lane."""
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return cls({jax.tree_util.keystr(path): _plain(leaf) for path, leaf in leaves}, **rest)

    @property
    def micro_turn(self) -> int:
        """The session's next micro-turn."""
        return int(self.arrays[".micro_turn"][0])

    def state(self, like: SessionState) -> SessionState:
        """The state of one lane again.

        Args:
            like: any state of one lane of the same configuration.

        Raises:
            ValueError: the arrays are not those of such a state.
        """
        leaves, tree = jax.tree_util.tree_flatten_with_path(like)
        names = [jax.tree_util.keystr(path) for path, _ in leaves]
        if set(names) != set(self.arrays):
            raise ValueError(f"snapshot differs in {sorted(set(names) ^ set(self.arrays))}")
        found = []
        for name, (_, leaf) in zip(names, leaves, strict=True):
            array = jax.device_put(self.arrays[name], may_alias=False)  # compiles nothing
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                array = jax.random.wrap_key_data(array)
            if array.shape != leaf.shape or array.dtype != leaf.dtype:
                raise ValueError(
                    f"snapshot leaf {name} is {array.dtype}{list(array.shape)}, the lanes have "
                    f"{leaf.dtype}{list(leaf.shape)}"
                )
            found.append(array)
        return jax.tree.unflatten(tree, found)

    def save(self, path: str | Path) -> None:
        """Write it; the file appears whole or not at all."""
        rest = {
            "form": _FORM,
            "fingerprint": self.fingerprint,
            "reader": self.reader,
            "waiting": [[piece.source.name, list(piece.tokens)] for piece in self.waiting],
            "pinned": self.pinned,
            "forgotten": self.forgotten,
        }
        path = Path(path)
        part = path.with_name(path.name + ".part")
        safetensors.numpy.save_file(self.arrays, part, metadata={"session": json.dumps(rest)})
        part.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Snapshot":
        """Read it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a snapshot, or of a form that this code does not read.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no snapshot at {path}")
        try:
            with safetensors.safe_open(path, "numpy") as file:
                rest = json.loads((file.metadata() or {})["session"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is not a snapshot of a session: {error}") from error
        if rest["form"] != _FORM:
            raise ValueError(f"{path} has form={rest['form']}, this code reads form={_FORM}")
        waiting = tuple(TextIn(Control[source], tuple(ids)) for source, ids in rest["waiting"])
        return cls(
            arrays, rest["fingerprint"], rest["reader"], waiting, rest["pinned"], rest["forgotten"]
        )
