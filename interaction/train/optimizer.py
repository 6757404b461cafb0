"""Optimiser of the interaction model.

In: numbers. Out: an optax transformation, which parameters it trains when, and the two rules that
live beside it: the balancing bias of the router (moved by the sign of its load error, never by a
gradient) and the running mean of the parameters.
"""

import dataclasses
import enum
import fnmatch
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from interaction.checkpoints.native import flatten, unflatten

_NOT_DECAYED = ("norm", "bias", "scale", "conv")
_FROZEN = "frozen"
# Vocabulary matrices and their axis of ids.
_VOCABULARY = {"transformer/embed/table": 0, "transformer/unembed": 1}
# Matrices that Muon may move, with the axes that it sums over and those that it gives; others are
# stacked matrices (layers, experts), each moved by itself. Left out: embeddings, output matrices
# and the router, whose rows belong to single tokens, features and experts, and vectors.
_MATRICES = {
    "transformer/attention_*/query": (1, (2, 3)),
    "transformer/attention_*/key": (1, (2, 3)),
    "transformer/attention_*/value": (1, (2, 3)),
    "transformer/attention_*/relative": (1, (2, 3)),
    "transformer/attention_*/output": ((1, 2), 3),
    "transformer/dense/gate": (1, 2),
    "transformer/dense/up": (1, 2),
    "transformer/dense/down": (1, 2),
    "transformer/moe/*gate": (2, 3),
    "transformer/moe/*up": (2, 3),
    "transformer/moe/*down": (2, 3),
    "vision/linear_*": (0, 1),
    "flow/condition": (0, 1),
    "flow/time_*": (0, 1),
    "flow/blocks/up": (1, 2),
    "flow/blocks/down": (1, 2),
    "flow/blocks/modulation": (1, 2),
}
# Root mean square of Muon's update at learning rate 1; AdamW's is about this (Liu et al. 2025,
# arXiv 2502.16982, section 2.2), so one learning rate serves both.
_MUON_SIZE = 0.2


class Matrices(enum.Enum):
    """What moves matrices: AdamW as everything else, or Muon.

    MUON: the momentum of every matrix, made orthogonal (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon; `optax.contrib.muon`).
    """

    ADAMW = "adamw"
    MUON = "muon"


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that train together.

    Attributes:
        parameters: paths joined by "/", as patterns of `fnmatch` ("flow/*").
        begins: step of its first update, where its warm-up and its moments start.
        ends: step from which it is frozen; None: the end of the run.
        share: its learning rate as a share of the optimiser's.
        ids: first and one past the last token id whose rows train; the group then holds vocabulary
            matrices alone. None: everything.
    """

    parameters: tuple[str, ...]
    begins: int = 0
    ends: int | None = None
    share: float = 1.0
    ids: tuple[int, int] | None = None

    def __post_init__(self):
        if not self.parameters:
            raise ValueError("parameters=() names nothing to train")
        if self.begins < 0 or (self.ends is not None and self.ends <= self.begins):
            raise ValueError(f"begins={self.begins} must be >= 0 and before ends={self.ends}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share} must lie in (0, 1]")
        if self.ids is not None and not 0 <= self.ids[0] < self.ids[1]:
            raise ValueError(f"ids={self.ids} must be a first id and one past the last")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, for matrices Muon if asked; warm-up, constant rate and a linear way down.

    Attributes:
        learning_rate: greatest rate.
        warmup: steps of linear warm-up.
        decay_share: share of the steps in which the rate goes down.
        final_share: rate at the end as a share of the greatest.
        weight_decay: on matrices; not on norms, biases, scales and convolution taps.
        clip: greatest global norm of the gradient.
        b2: second-moment decay of AdamW.
        matrices: what moves matrices.
        average: decay of the running mean of the parameters.
        balance_rate: step of the router's balancing bias (DeepSeek-V3 uses 0.001); 0: it stays.
        groups: what trains when; a parameter belongs to the first group that names it, one that
            none names is frozen. Empty: everything trains.
    """

    learning_rate: float = 2e-3
    warmup: int = 200
    decay_share: float = 0.3
    final_share: float = 0.02
    weight_decay: float = 0.02
    clip: float = 1.0
    b2: float = 0.98
    matrices: Matrices = Matrices.ADAMW
    average: float = 0.998
    balance_rate: float = 1e-3
    groups: tuple[Group, ...] = ()

    def __post_init__(self):
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate={self.learning_rate} must lie between 0 and 1")


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, a constant rate, then linearly down over the last `decay_share`.

    Until the way down begins the rate does not depend on `steps`, so a run may be made longer.
    """
    peak, final = config.learning_rate, config.learning_rate * config.final_share
    down = max(int(steps * config.decay_share), 1)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, config.warmup),
            optax.constant_schedule(peak),
            optax.linear_schedule(peak, final, down),
        ],
        [config.warmup, max(steps - down, config.warmup + 1)],
    )


def make(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, the rules, the schedule; with `groups`, each group by itself while it trains.

    A frozen parameter has no moments, does not count in the clipping, and keeps every bit.
    """
    if not config.groups:
        return _rule(config, steps)
    rules: dict = {_FROZEN: optax.set_to_zero()}
    for number, group in enumerate(config.groups):
        end = steps if group.ends is None else group.ends
        own = dataclasses.replace(config, learning_rate=config.learning_rate * group.share)
        rule = _rule(own, max(end - group.begins, 1))
        if group.ids is not None:
            only = optax.stateless(functools.partial(_only_ids, group.ids))
            rule = optax.chain(only, rule, only)
        trains = functools.partial(_trains, group.begins, end)
        rules[str(number)] = optax.transforms.conditionally_mask(rule, trains)
    labels = functools.partial(_labels, config)
    return optax.chain(optax.partition(rules, labels), optax.stateless(_signed))


def frozen(config: OptimizerConfig, path: str) -> bool:
    """Whether the parameter at `path` (joined by "/") never trains."""
    return bool(config.groups) and _label(config, path) == _FROZEN


def split(config: OptimizerConfig, params: dict) -> tuple[dict, dict]:
    """Parameters that train at some time, and those that never do."""
    flat = flatten(params)
    still = {path: leaf for path, leaf in flat.items() if frozen(config, path)}
    moving = {path: leaf for path, leaf in flat.items() if path not in still}
    return unflatten(moving), unflatten(still)


def join(moving: dict, still: dict) -> dict:
    """The inverse of `split`."""
    return unflatten(flatten(moving) | flatten(still))


def _rule(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, then AdamW, or Muon for matrices and AdamW for the rest."""
    rate = schedule(config, steps)
    rule = optax.adamw(rate, b2=config.b2, weight_decay=config.weight_decay, mask=decayed)
    if config.matrices is Matrices.MUON:
        muon = optax.contrib.muon(
            rate,
            weight_decay=config.weight_decay,
            consistent_rms=_MUON_SIZE,
            muon_weight_dimension_numbers=_dimensions,
        )
        rule = optax.partition({Matrices.ADAMW.value: rule, Matrices.MUON.value: muon}, _movers)
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def _dimension(path: str) -> MuonDimensionNumbers | None:
    for pattern, (inputs, outputs) in _MATRICES.items():
        if fnmatch.fnmatchcase(path, pattern):
            return MuonDimensionNumbers(inputs, outputs)
    return None


def _dimensions(params: optax.Params) -> optax.Params:
    """Axes of every matrix that Muon moves."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _dimension(_joined(path)), params)


def moved_by_muon(path: str) -> bool:
    """Whether Muon, where asked for, moves the parameter at `path` (joined by "/")."""
    return _dimension(path) is not None


def _movers(params: dict) -> dict:
    def mover(path, _):
        return (Matrices.MUON if moved_by_muon(_joined(path)) else Matrices.ADAMW).value

    return jax.tree_util.tree_map_with_path(mover, params)


def _label(config: OptimizerConfig, path: str) -> str:
    for number, group in enumerate(config.groups):
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in group.parameters):
            return str(number)
    return _FROZEN


def _labels(config: OptimizerConfig, params: dict) -> dict:
    """Group of every leaf; a pattern that names nothing is an error."""
    paths = jax.tree_util.tree_map_with_path(lambda path, _: _joined(path), params)
    known = jax.tree.leaves(paths)
    for number, group in enumerate(config.groups):
        for pattern in group.parameters:
            if not fnmatch.filter(known, pattern):
                raise ValueError(f"groups[{number}].parameters: {pattern!r} names no parameter")
    labels = jax.tree.map(functools.partial(_label, config), paths)
    for path, label in zip(known, jax.tree.leaves(labels), strict=True):
        if label != _FROZEN and config.groups[int(label)].ids and path not in _VOCABULARY:
            raise ValueError(f"groups[{label}].ids: {path} has no axis of ids")
    return labels


def _joined(path) -> str:
    return "/".join(str(key.key) for key in path)


def _trains(begins: int, ends: int, step: Any, **_: Any) -> Any:
    return (begins <= step) & (step < ends)


def _only_ids(ids: tuple[int, int], updates: Any, _: Any = None) -> Any:
    """Zero but for the rows of these ids."""

    def cut(path, leaf):
        axis = _VOCABULARY[_joined(path)]
        index = jax.lax.broadcasted_iota(jnp.int32, leaf.shape, axis)
        return jnp.where((ids[0] <= index) & (index < ids[1]), leaf, 0)

    return jax.tree_util.tree_map_with_path(cut, updates)


def _signed(updates: Any, _: Any = None) -> Any:
    """An update of 0 as -0.0, which changes no bit: -0.0 + 0.0 would be 0.0."""
    return jax.tree.map(
        lambda leaf: jnp.where(leaf == 0, jnp.asarray(-0.0, leaf.dtype), leaf), updates
    )


def decayed(params) -> dict:
    """Which leaves weight decay acts on: not those that scale, shift or smooth a channel."""

    def acts(path, _):
        name = str(path[-1].key)
        return not name.startswith("norm") and not name.endswith(_NOT_DECAYED)

    return jax.tree_util.tree_map_with_path(acts, params)


def balance(params: dict, load_LE: jax.Array, rate: float) -> dict:
    """Move each router's bias towards an equal load (Wang et al. 2024, arXiv 2408.15664)."""
    if rate == 0 or "moe" not in params["transformer"]:
        return params
    moe = params["transformer"]["moe"]
    error = jnp.mean(load_LE, axis=-1, keepdims=True) - load_LE
    bias = moe["bias"] + rate * jnp.sign(error)
    transformer = dict(params["transformer"], moe=dict(moe, bias=bias))
    return dict(params, transformer=transformer)


def average(mean: dict, params: dict, decay: float, step: jax.Array) -> dict:
    """Running mean of the parameters; early steps forget faster. What does not move is its mean."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def moved(m, p):
        new = (m * rate + p * (1.0 - rate)).astype(m.dtype)
        return jnp.where(m == p, p, new)

    return jax.tree.map(moved, mean, params)
