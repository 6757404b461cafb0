"""A checkpoint as programs that run without this project's model code.

In: a checkpoint and a platform. Out: a folder with one serialised program per input bucket, two
that make states, the weights in safetensors and ``manifest.json`` (`serving.manifest`), written
for `serving.runtime` and for servers in other languages (`docs/export.md`). Nothing is compiled
here, so programs for a GPU or a TPU are exported on any machine.

Every group of arrays (parameters, state, inputs, outputs) is a flat mapping from names to arrays
in order of name, whatever tree it has in this process; typed PRNG keys are their uint32 data.
"""

import dataclasses
import datetime
import enum
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractDevice, AbstractMesh

from interaction import configuration
from interaction.checkpoints import native
from interaction.checkpoints.safetensors_file import TensorInfo
from interaction.kernels.implementation import Implementation
from interaction.models.checkpoint import load_model
from interaction.models.config import AttentionKind, CacheType, InteractionConfig
from interaction.models.memory import Holding, Policy
from interaction.models.quantise import Experts, quantise_experts
from interaction.serving import manifest as contents
from interaction.serving.manifest import (
    Bucket,
    Leaf,
    Manifest,
    Pinned,
    Platform,
    Program,
    Tokens,
)
from interaction.session.lanes import buckets
from interaction.session.state import init_state
from interaction.session.step import microturn_step
from interaction.streams.weave import weave_inputs
from interaction.types import CHANNELS, CLOSERS, TEXT_SOURCES, Control, MicroturnInputs, Stream

Arrays = dict[str, Any]

# Kernels ask which device they are lowered for. They read only its generation's limits: a program
# lowered so was compiled for v5e, v5p, v6e and 7x alike (`tests/test_kernels_compile.py`).
_DEVICES = {
    Platform.CPU: AbstractMesh((), ()),
    Platform.CUDA: AbstractMesh((), (), abstract_device=AbstractDevice("NVIDIA H200", 132, "gpu")),
    Platform.TPU: AbstractMesh((), (), abstract_device=AbstractDevice("TPU v6 lite", 1, "tpu")),
}
# Triton kernels carry no promise that a later jax can still read them; `runtime` refuses old
# artefacts anyway.
_NOT_GUARANTEED = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]


class Kernels(enum.Enum):
    """Who computes attention, experts and flow of an exported step.

    PALLAS has kernels for TPU and GPU (`interaction.kernels`); sizes must suit them.
    """

    XLA = "xla"
    PALLAS = "pallas"


def with_kernels(
    config: InteractionConfig, kernels: Kernels, platform: Platform, experts: Experts
) -> InteractionConfig:
    """The configuration with these kernels in its live calls."""
    if kernels is Kernels.XLA:
        who = Implementation.REFERENCE
    elif platform is Platform.CPU or experts is Experts.INT8:
        raise ValueError(
            f"kernels=pallas has no kernels for platform={platform.value} with "
            f"experts={experts.value}"
        )
    else:
        on_tpu = platform is Platform.TPU
        who = Implementation.PALLAS_TPU if on_tpu else Implementation.PALLAS_GPU
    stack = dataclasses.replace(config.transformer, implementation=who)
    return dataclasses.replace(config, transformer=stack)


def export_checkpoint(
    checkpoint: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    platform: Platform,
    lanes: int = 1,
    experts: Experts = Experts.FLOAT32,
    cache: CacheType | None = None,
    kernels: Kernels = Kernels.XLA,
) -> Manifest:
    """Export a native checkpoint of an interaction model.

    Args:
        checkpoint: its folder.
        out: folder to make; must not exist, and appears only when it is complete.
        platform: what the programs are for.
        lanes: B sessions stepped in lockstep.
        experts: how expert weights are stored.
        cache: what lanes keep keys and values as; None: as the configuration says.
        kernels: who computes attention, experts and flow.

    Raises:
        CheckpointError: `checkpoint` cannot be read, or `out` exists.
    """
    params, config = load_model(checkpoint)
    if cache is not None:
        config = dataclasses.replace(config, cache_type=cache)
    name = pathlib.Path(checkpoint).name
    return export_model(
        params, config, out, platform=platform, lanes=lanes, experts=experts, kernels=kernels,
        checkpoint=name,
    )  # fmt: skip


def export_model(
    params: dict,
    config: InteractionConfig,
    out: str | pathlib.Path,
    *,
    platform: Platform,
    lanes: int = 1,
    experts: Experts = Experts.FLOAT32,
    kernels: Kernels = Kernels.XLA,
    checkpoint: str = "",
) -> Manifest:
    """Export parameters that are in memory; see `export_checkpoint`."""
    if lanes < 1:
        raise ValueError(f"lanes={lanes} must be at least 1")
    config = with_kernels(config, kernels, platform, experts)
    if experts is Experts.INT8:
        params = quantise_experts(params)
    weights = dict(sorted(native.flatten(params).items()))
    programs = _Programs(config, lanes, weights)
    sizes = list(dict.fromkeys(buckets(programs.config)))
    with native.fresh_folder(out) as folder:
        made = [_write(p, platform, folder) for p in (programs.fresh(), programs.admit())]
        steps = [_write(programs.step(size), platform, folder) for size in sizes]
        (convention,) = {exported.calling_convention_version for _, exported in (*made, *steps)}
        manifest = Manifest(
            format=contents.FORMAT,
            version=contents.VERSION,
            platform=platform,
            made=contents.Made(
                date=datetime.date.today().isoformat(),
                jax=jax.__version__,
                calling_convention=convention,
                checkpoint=checkpoint,
            ),
            lanes=lanes,
            experts=experts.value,
            parameter_files=_write_weights(weights, folder),
            parameters=_leaves(weights),
            state=programs.state_leaves(),
            outputs=_leaves(programs.outputs),
            programs=tuple(program for program, _ in (*made, *steps)),
            buckets=tuple(
                Bucket(program.name, size.slots, size.patches)
                for (program, _), size in zip(steps, sizes, strict=True)
            ),
            tokens=_tokens(config),
            weave=configuration.to_dict(config.weave),
            pinned=_pinned(config),
            sample_rate=config.grid.sample_rate,
            config=configuration.to_dict(config),
        )
        contents.write_manifest(manifest, folder)
    return manifest


def _pinned(config: InteractionConfig) -> Pinned | None:
    typed = config.memory.policy is Policy.TYPED
    if not typed or not config.transformer.count(AttentionKind.GLOBAL):
        return None
    limit = config.global_slots - config.weave.max_slots
    return Pinned("cache/global/holding", int(Holding.PINNED), limit)


def _tokens(config: InteractionConfig) -> Tokens:
    return Tokens(
        tokenizer="bytes",
        ordinary=config.ordinary_tokens,
        controls={control.name: config.ordinary_tokens + int(control) for control in Control},
        closers=tuple(control.name for control in CLOSERS),
        channels=tuple(control.name for control in CHANNELS),
        text_sources=tuple(control.name for control in TEXT_SOURCES),
        streams={stream.name: int(stream) for stream in Stream},
    )


# ---------------------------------------------------------------- trees as named arrays


def named(tree: Any) -> Arrays:
    """Leaves of a pytree by path, in order of name; typed PRNG keys as their data."""

    def plain(leaf):
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if typed else leaf

    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): plain(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    return dict(sorted(found.items()))


def tree_from(arrays: Mapping[str, Any], like: Any) -> Any:
    """The inverse of `named`.

    Args:
        arrays: by name.
        like: a tree of that structure, whose leaves need a dtype only.
    """

    def take(path, leaf):
        found = arrays[jax.tree_util.keystr(path, simple=True, separator="/")]
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.wrap_key_data(found) if typed else found

    return jax.tree_util.tree_map_with_path(take, like)


def _leaves(arrays: Mapping[str, Any]) -> tuple[Leaf, ...]:
    return tuple(
        Leaf(name, np.dtype(array.dtype).name, tuple(array.shape)) for name, array in arrays.items()
    )


# ---------------------------------------------------------------- programs


@dataclasses.dataclass(frozen=True)
class _Source:
    """A function of groups of named arrays, and what it is called with."""

    name: str
    function: Callable
    arguments: dict[str, Arrays]
    results: tuple[str, ...]


class _Programs:
    """The functions that are exported, for one model and number of lanes."""

    def __init__(self, config: InteractionConfig, lanes: int, weights: Arrays):
        # As live: unrolled layers triple the time that compiling the step takes.
        stack = dataclasses.replace(config.transformer, unroll=1)
        self.config = dataclasses.replace(config, transformer=stack)
        self.lanes = lanes
        self.weights = {n: jax.ShapeDtypeStruct(w.shape, w.dtype) for n, w in weights.items()}
        self._tree = jax.eval_shape(lambda: init_state(self.config, lanes))
        self.state = jax.eval_shape(named, self._tree)
        self._axes = self._lane_axes()
        first = buckets(self.config)[0]
        self.outputs = jax.eval_shape(self._step, self.weights, self.state, self.inputs(first))[1]

    def state_leaves(self) -> tuple[Leaf, ...]:
        """Leaves of the state with their lane axes."""
        return tuple(
            dataclasses.replace(leaf, lane_axis=self._axes[leaf.name])
            for leaf in _leaves(self.state)
        )

    def inputs(self, bucket) -> Arrays:
        """Inputs of a micro-turn without any session."""
        woven = weave_inputs(
            [None] * self.lanes, self.config.weave, slots=bucket.slots, patches=bucket.patches
        )
        return named(woven)

    def fresh(self) -> _Source:
        """``(seed) -> state``: new sessions in every lane."""
        return _Source("fresh", self._fresh, {"inputs": {"seed": _seed()}}, ("state",))

    def admit(self) -> _Source:
        """``(state, lanes, seed) -> state``: new sessions in some lanes, the others untouched."""
        lanes = jax.ShapeDtypeStruct((self.lanes,), jnp.bool_)
        arguments = {"state": self.state, "inputs": {"lanes": lanes, "seed": _seed()}}
        return _Source("admit", self._admit, arguments, ("state",))

    def step(self, bucket) -> _Source:
        """``(parameters, state, inputs) -> (state, outputs)``: one micro-turn."""
        arguments = {
            "parameters": self.weights,
            "state": self.state,
            "inputs": self.inputs(bucket),
        }
        name = f"step_{bucket.slots}_{bucket.patches}"
        return _Source(name, self._step, arguments, ("state", "outputs"))

    def _fresh(self, inputs: Arrays) -> Arrays:
        return named(init_state(self.config, self.lanes, seed=inputs["seed"]))

    def _admit(self, state: Arrays, inputs: Arrays) -> Arrays:
        fresh = self._fresh({"seed": inputs["seed"]})
        return {name: self._chosen(name, inputs["lanes"], fresh, state) for name in state}

    def _chosen(self, name: str, lanes, fresh: Arrays, old: Arrays):
        axis = self._axes[name]
        if axis is None:
            return old[name]
        shape = [1] * old[name].ndim
        shape[axis] = self.lanes
        return jnp.where(lanes.reshape(shape), fresh[name], old[name])

    def _step(self, weights: Arrays, state: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        after, outputs = microturn_step(
            native.unflatten(weights),
            tree_from(state, self._tree),
            MicroturnInputs(**inputs),
            self.config,
        )
        return named(after), named(outputs)

    def _lane_axes(self) -> dict[str, int | None]:
        """Which axis of each state leaf counts lanes: the one that grows with their number."""
        more = jax.eval_shape(lambda: named(init_state(self.config, self.lanes + 1)))
        axes: dict[str, int | None] = {}
        for name, leaf in self.state.items():
            grown = [i for i, n in enumerate(leaf.shape) if more[name].shape[i] != n]
            axes[name] = grown[0] if grown else None
        return axes


def _seed() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jnp.uint32)


def _write(
    source: _Source, platform: Platform, folder: pathlib.Path
) -> tuple[Program, jax.export.Exported]:
    """Lower one function for `platform` and write it in both forms."""
    groups = tuple(source.arguments)
    donated_groups = tuple(i for i, group in enumerate(groups) if group == "state")
    jitted = jax.jit(source.function, donate_argnums=donated_groups)
    # Without places in the source: the same program is the same bytes wherever it is made.
    frames = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        with jax.sharding.use_abstract_mesh(_DEVICES[platform]):
            export = jax.export.export(
                jitted, platforms=[platform.value], disabled_checks=_NOT_GUARANTEED
            )
            exported = export(*source.arguments.values())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)
    (folder / f"{source.name}.exported").write_bytes(exported.serialize())
    (folder / f"{source.name}.stablehlo").write_bytes(exported.mlir_module_serialized)
    first, donated = 0, []
    for group in groups:
        size = len(source.arguments[group])
        donated += range(first, first + size) if group == "state" else ()
        first += size
    program = Program(
        name=source.name,
        exported=contents.file_of(folder, f"{source.name}.exported"),
        stablehlo=contents.file_of(folder, f"{source.name}.stablehlo"),
        arguments=groups,
        results=source.results,
        inputs=_leaves(source.arguments["inputs"]),
        kept=tuple(exported.module_kept_var_idx),
        donated=tuple(donated),
    )
    return program, exported


def _write_weights(weights: Arrays, folder: pathlib.Path) -> tuple[contents.File, ...]:
    before = set(folder.iterdir())
    layout = {n: TensorInfo(np.dtype(w.dtype), tuple(w.shape)) for n, w in weights.items()}
    with native.ShardedWriter(folder, layout, stem="params") as writer:
        for name, leaf in weights.items():
            writer.write(name, np.asarray(leaf))
    written = sorted(path.name for path in set(folder.iterdir()) - before)
    return tuple(contents.file_of(folder, name) for name in written)
