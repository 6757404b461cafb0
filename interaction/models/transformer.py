"""The decoder stack: layers stacked by kind and scanned by repeating period.

In: slot states, their whereabouts, parameters, and a cache or nothing. Out: final hidden states,
the cache with these slots in it, and each mixture layer's expert load. `run` is all of it;
`forward_tokens` is the plain language model on top, for imported checkpoints.
"""

import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from interaction.kernels import native_train
from interaction.kernels.implementation import Implementation
from interaction.kernels.streamed import Row, project
from interaction.models import attention as att
from interaction.models.attention import Whereabouts, rms_norm
from interaction.models.attention_live import attend_live, plan
from interaction.models.attention_tiles import Bias, attend_whole
from interaction.models.cache import Stored, admit, write
from interaction.models.config import (
    AttentionKind,
    MlpKind,
    QueryKeyNorm,
    Recompute,
    TransformerConfig,
)
from interaction.models.moe import Load, mixture
from interaction.shapes import Array, Float
from interaction.sharding import SEQUENCE, constrain, mesh_sizes

Kinds = tuple[tuple[AttentionKind, MlpKind], ...]


@dataclasses.dataclass(frozen=True)
class Segment:
    """A run of layers: `pattern` repeated `repeats` times, from layer `start`."""

    pattern: Kinds
    repeats: int
    start: int


def segments(kinds: Kinds) -> tuple[Segment, ...]:
    """Cut the stack into repeating periods, each of which becomes one scan.

    At every point the period that covers most layers is taken, the shorter one on a tie:
    five sliding layers and one global repeated seven times are one segment of 42 layers.
    """
    found, start = [], 0
    while start < len(kinds):
        best = Segment((kinds[start],), 1, start)
        for period in range(1, (len(kinds) - start) // 2 + 1):
            pattern = kinds[start : start + period]
            repeats = 1
            while kinds[start + repeats * period :][:period] == pattern:
                repeats += 1
            if repeats > 1 and repeats * period > best.repeats * len(best.pattern):
                best = Segment(pattern, repeats, start)
        found.append(best)
        start += best.repeats * len(best.pattern)
    return tuple(found)


# ---------------------------------------------------------------------------- one layer


@dataclasses.dataclass(frozen=True)
class _Call:
    """What every layer of one call shares."""

    config: TransformerConfig
    where: Whereabouts
    valid_BT: Array
    added_B: Array
    places: dict | None
    consecutive: bool
    until: Array | None
    planned: dict | None = None
    capacity_factor: float | None = None

    @property
    def native(self) -> bool:
        """Whether C++ computes what it can."""
        return self.config.implementation is Implementation.NATIVE

    def laid(self, x_BTD):
        """States where they belong under a mesh; a live call's few slots are not split."""
        return constrain(x_BTD, "batch", "slots" if self.places is None else None, None)


def _convolve(x, weight, cache, name, index, call: _Call):
    """A short convolution with its state read from and written to row `index` of the cache."""
    if cache is None:
        if call.native and x.dtype == weight.dtype == jnp.float32:
            return native_train.short_convolution(x, weight), None
        return att.short_convolution(x, weight, None, None)[0], None
    y, state = att.short_convolution(x, weight, cache[name][index], call.added_B)
    return y, dict(cache, **{name: cache[name].at[index].set(state)})


def _attention(p: dict, x, cache: dict | None, kind, index, call: _Call):
    """Attention of one layer; `index` is its row in the stack of its kind."""
    config, heads = call.config, call.config.attention(kind)
    is_global = kind is AttentionKind.GLOBAL
    entry = None if cache is None else cache[kind.value]
    B, T, _ = x.shape
    multiply = functools.partial(project, native=call.native)
    query, key, value = (multiply(x, p[name]) for name in ("query", "key", "value"))
    if "key_conv" in p:
        flat = (B, T, heads.kv_heads * heads.head_width)
        shape = key.shape
        key, entry = _convolve(key.reshape(flat), p["key_conv"], entry, "key_conv", index, call)
        value, entry = _convolve(
            value.reshape(flat), p["value_conv"], entry, "value_conv", index, call
        )
        key, value = key.reshape(shape), value.reshape(shape)
    if config.query_key_norm is QueryKeyNorm.PER_HEAD:
        query = rms_norm(query, p["query_norm"], config.norm_epsilon)
        key = rms_norm(key, p["key_norm"], config.norm_epsilon)
        scale = 1.0 / heads.head_width
    else:
        scale = heads.head_width**-0.5
    bias = None
    if att.uses_rotary(config):
        query = att.rotate(query, call.where.position, config.rotary_base)
        key = att.rotate(key, call.where.position, config.rotary_base)
    else:
        bias = Bias(multiply(x, p["relative"]), p["bias_table"])
    shared = {
        "queries": call.where,
        "heads": heads,
        "scale": scale,
        "length_scale_BT": att.length_scale(call.where.position, config) if is_global else None,
    }
    if entry is None:
        keys = dataclasses.replace(call.where, until=call.until if is_global else None)
        split = mesh_sizes().get(SEQUENCE, 1) > 1
        out = attend_whole(
            query, key, value, bias, keys=keys, consecutive=call.consecutive, **shared,
            query_slots=0 if split else config.query_slots,
            native=call.native,
        )  # fmt: skip
    else:
        assert call.places is not None
        put = functools.partial(write, window=heads.window)
        place = call.places[kind]
        entry = dict(
            entry,
            key=put(entry["key"], index, place, key),
            value=put(entry["value"], index, place, value),
        )
        keys = Whereabouts(position=entry["position"], order=entry["order"])
        by_distance = None if bias is None else bias.by_distance()
        out = attend_live(
            query, entry["key"], entry["value"], index, by_distance, keys=keys, **shared,
            implementation=config.implementation,
            planned=None if call.planned is None else call.planned[kind],
        )  # fmt: skip
    out = multiply(out, p["output"], contract=2)
    return out, cache if cache is None else dict(cache, **{kind.value: entry})


def _layer_of(slices: dict, x, cache, at: dict, kinds, index: dict, call: _Call):
    """`_layer` with its weights cut out of a period's.

    Cut in here, what the backward pass keeps of a recomputed layer is the period as the scan was
    given it; cut outside, it would be a second copy of the weights.

    Args:
        slices: by family, ``[layers of a period, ...]``.
        at: family and place in it, by role.
        x, cache, kinds, index, call: as `_layer`.
    """
    p = {
        role: jax.tree.map(lambda leaf, place=place: leaf[place], slices[name])
        for role, (name, place) in at.items()
    }
    return _layer(p, x, cache, kinds, index, call)


def _layer(p: dict, x, cache, kinds, index: dict, call: _Call):
    """One block; `p` holds this layer's slices, `index` its rows in the stacks, by role."""
    config = call.config
    kind, mlp = kinds
    block = p["block"]
    y = rms_norm(x, block["attention_norm"], config.norm_epsilon)
    y, cache = _attention(p["attention"], y, cache, kind, index["attention"], call)
    if "attention_conv" in block:
        y, cache = _convolve(
            y, block["attention_conv"], cache, "attention_conv", index["block"], call
        )
    x = x + y
    y = rms_norm(x, block["mlp_norm"], config.norm_epsilon)
    load = None
    if mlp is MlpKind.MOE:
        y, load = mixture(p["mlp"], y, call.valid_BT, config, capacity_factor=call.capacity_factor)
    else:
        multiply = functools.partial(project, native=call.native)
        hidden = jax.nn.silu(multiply(y, p["mlp"]["gate"])) * multiply(y, p["mlp"]["up"])
        y = multiply(hidden, p["mlp"]["down"])
        if "scale" in p["mlp"]:
            y = y * p["mlp"]["scale"]
    if "mlp_conv" in block:
        y, cache = _convolve(y, block["mlp_conv"], cache, "mlp_conv", index["block"], call)
    return call.laid(x + y), cache, load


# ---------------------------------------------------------------------------- the stack


def _family(kind: AttentionKind | MlpKind) -> str:
    return f"attention_{kind.value}" if isinstance(kind, AttentionKind) else kind.value


# Weights that a live call reads where they lie; a layer's others are small and cut out.
STREAMED = frozenset(
    "query key value relative output gate up down shared_gate shared_up shared_down".split()
)


def _rows(stacks: dict, index) -> dict:
    """One layer's weights out of the stacks of its family."""
    rows = {name: Row.of(stack, index) for name, stack in stacks.items()}
    return {name: row if name in STREAMED else row.whole() for name, row in rows.items()}


def _scan_segment(params: dict, segment: Segment, before: dict, x, cache, call: _Call):
    """Run one segment; `before` counts the layers of each family below it."""
    families = [("block", _family(a), _family(m)) for a, m in segment.pattern]
    per_period = collections.Counter(name for layer in families for name in layer)

    def rows(name):
        size, first = per_period[name] * segment.repeats, before.get(name, 0)
        shape = (segment.repeats, per_period[name])
        return jax.tree.map(
            lambda leaf: leaf[first : first + size].reshape(shape + leaf.shape[1:]), params[name]
        )

    live = cache is not None
    stacks = {} if live else {name: rows(name) for name in per_period}

    def period(carry, inputs):
        x, cache = carry
        number, slices = inputs
        seen, loads = {}, []
        for kinds, names in zip(segment.pattern, families, strict=True):
            at, index = {}, {}
            for role, name in zip(("block", "attention", "mlp"), names, strict=True):
                place = seen.get(name, 0)
                seen[name] = place + 1
                at[role] = (name, place)
                index[role] = before.get(name, 0) + number * per_period[name] + place
            if live:
                p = {role: _rows(params[name], index[role]) for role, (name, _) in at.items()}
                x, cache, load = _layer(p, x, cache, kinds, index, call)
            else:
                layer = functools.partial(_layer_of, at=at, kinds=kinds, index=index, call=call)
                if call.config.recompute is Recompute.LAYERS:
                    layer = jax.checkpoint(layer)
                x, cache, load = layer({name: slices[name] for name in names}, x, cache)
            if load is not None:
                loads.append(load)
        return (x, cache), _stacked(loads, call.config.experts)

    unroll = min(call.config.unroll, segment.repeats)
    (x, cache), loads = jax.lax.scan(
        period, (x, cache), (jnp.arange(segment.repeats), stacks), unroll=unroll
    )
    after = {
        name: before.get(name, 0) + per_period[name] * segment.repeats
        for name in {*before, *per_period}
    }
    flat = lambda leaf: leaf.reshape(math.prod(leaf.shape[:2]), *leaf.shape[2:])
    return x, cache, jax.tree.map(flat, loads), after


def _stacked(loads: list[Load], experts: int) -> Load:
    """Loads of layers in one."""
    if not loads:
        return Load(share=jnp.zeros((0, experts)), dropped=jnp.zeros((0,)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *loads)


def run(
    params: dict,
    x_BTD: Float[Array, "B T D"],
    config: TransformerConfig,
    *,
    position_BT: Array,
    valid_BT: Array,
    cache: dict | None = None,
    consecutive: bool = False,
    stored: Stored | None = None,
    until_BT: Array | None = None,
    capacity_factor: float | None = None,
) -> tuple[Float[Array, "B T D"], dict | None, Load]:
    """The stack over one call's slots.

    Args:
        params: the `transformer` tree.
        x_BTD: embedded slots, valid ones packed to the left of each row.
        config: the stack.
        position_BT: position of each slot.
        valid_BT: which slots are there.
        cache: from `cache.init_cache`; None: these slots are all there is (training).
        consecutive: positions are 0..T-1 in every row (lets the bias be laid out by a shift).
        stored: with a cache that has typed memory: what the slots hold and where they go.
        until_BT: without a cache: the count of slots from which global layers no longer see a
            slot (`memory.last_seen`).
        capacity_factor: without a cache: see `moe.mixture`.

    Returns:
        Normalised hidden states (meaningless where not valid), the new cache, and the load of
        every mixture layer, stacked.

    Raises:
        ValueError: NATIVE under a mesh.
    """
    sizes = mesh_sizes()
    if sizes and config.implementation is Implementation.NATIVE:
        raise ValueError(f"implementation=NATIVE computes on one device; the mesh is {sizes}")
    added = jnp.sum(valid_BT, axis=1, dtype=jnp.int32)
    places = None
    if cache is None:
        order = jnp.where(valid_BT, jnp.arange(x_BTD.shape[1])[None], att.NOT_THERE)
        where = Whereabouts(position=position_BT, order=order)
    else:
        cache, where, places = admit(cache, position_BT, valid_BT, stored)
    planned = None if cache is None else plan(cache, where, config)
    call = _Call(
        config, where, valid_BT, added, places, consecutive, until_BT, planned, capacity_factor
    )
    kinds = tuple(zip(config.attention_kinds, config.mlp_kinds, strict=True))
    x, before, loads = call.laid(x_BTD), {}, []
    for segment in segments(kinds):
        x, cache, load, before = _scan_segment(params, segment, before, x, cache, call)
        loads.append(load)
    x = rms_norm(x, params["final_norm"], config.norm_epsilon)
    return x, cache, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *loads)


def embed_tokens(params: dict, token: Array, config: TransformerConfig) -> Array:
    """Text embedding, normalised where the architecture does so."""
    x = params["embed"]["table"][token]
    if "norm" in params["embed"]:
        x = rms_norm(x, params["embed"]["norm"], config.norm_epsilon)
    return x


def logits(
    params: dict, hidden: Array, config: TransformerConfig, *, live: bool = False
) -> Array:  # fmt: skip
    """float32 scores of the kept vocabulary; `live`: of few slots, without gradients."""
    x = hidden / config.logits_divisor
    if config.tied:
        scores = jnp.einsum("...D,VD->...V", x, params["embed"]["table"])
    else:
        native = config.implementation is Implementation.NATIVE
        unembed = params["unembed"]
        streamed = Row(unembed[None], jnp.int32(0)) if native and live else unembed
        scores = project(x, streamed, native=native)
    return scores[..., : config.logits_size].astype(jnp.float32)


def forward_tokens(
    params: dict,
    tokens_BT: Array,
    config: TransformerConfig,
    *,
    valid_BT: Array | None = None,
    embeddings_BTD: Array | None = None,
) -> Float[Array, "B T V"]:
    """Language-model logits of whole sequences.

    Args:
        params: the `transformer` tree.
        tokens_BT: ids (ignored where `embeddings_BTD` is given).
        config: the stack.
        valid_BT: slots that are there, packed to the left; None: all.
        embeddings_BTD: ready slot embeddings (text merged with stems).

    Returns:
        Logits of the kept vocabulary at every slot.
    """
    x = embed_tokens(params, tokens_BT, config) if embeddings_BTD is None else embeddings_BTD
    B, T = x.shape[:2]
    valid = jnp.ones((B, T), bool) if valid_BT is None else valid_BT
    position = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None], (B, T))
    hidden, _, _ = run(params, x, config, position_BT=position, valid_BT=valid, consecutive=True)
    return logits(params, hidden, config)
