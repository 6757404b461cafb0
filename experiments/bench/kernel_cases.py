"""The calls that the kernels' bench times, on each kind of device.

In: a backend, "cpu", "gpu" or "tpu". Out: its `Case`s: arguments, the ways of computing one call,
which of them the live step takes, and the bytes and operations of the call (`count` of each
kernel). GPU and TPU: one layer's worth of `configs/tml_interaction_small.py` in bfloat16. CPU: the
sizes of nano and of the benches' `small` in float32, and some whose calls in turn read more than
the processor's last cache holds. Nothing is drawn before a case is asked for its arguments.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import tml_interaction_small
from interaction.kernels import attention, experts, flow
from interaction.kernels.implementation import Count, Implementation
from interaction.models.attention import Whereabouts
from interaction.models.attention_blocks import attend_in_cache
from interaction.models.config import AttentionConfig

MODEL = tml_interaction_small.get_config().model
STACK = MODEL.transformer
LIVE_ON_CPU = "blocks up to the last filled place"

Way = Callable[[Any, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Case:
    """One call by every way.

    Attributes:
        kernel: what is computed.
        about: its sizes, for the table.
        count: bytes and operations of one call.
        working_set: bytes that calls with index 0, 1, ... read in turn before they begin again.
        make: draws ``(arguments, x)``.
        ways: name -> ``(arguments, x, index) -> `` an array like x; `index` says which layer is
            read, or which experts are chosen.
        live: the way that the live step takes there.
    """

    kernel: str
    about: Mapping[str, Any]
    count: Count
    working_set: int
    make: Callable[[], tuple[Any, jax.Array]]
    ways: Mapping[str, Way]
    live: str


def cases(backend: str) -> list[Case]:
    """Everything that is timed on a backend.

    Raises:
        ValueError: no such backend.
    """
    if backend == "cpu":
        return [*_cpu_attention(), *_cpu_experts(), *_cpu_flow()]
    if backend not in ("gpu", "tpu"):
        raise ValueError(f"backend={backend!r} is not one of 'cpu', 'gpu', 'tpu'")
    kernel = Implementation.PALLAS_GPU if backend == "gpu" else Implementation.PALLAS_TPU
    found = [
        _attention(_announced(kind), kind.strip("_"), lanes, slots, places, layers, kernel)
        for kind, lanes, slots, places, layers in (
            ("local", 8, 20, 640, 8), ("global_", 1, 20, 131_072, 2),
            ("global_", 1, 60, 131_072, 2), ("global_", 8, 20, 16_384, 2),
        )
    ]  # fmt: skip
    sizes = {"width": STACK.width, "inner": STACK.expert_width, "number": STACK.experts,
             "per_row": STACK.experts_per_slot}  # fmt: skip
    ways = (Implementation.REFERENCE, kernel)
    ways += (Implementation.GROUPED,) if backend == "tpu" else ()
    found += [_experts(rows, 1, jnp.bfloat16, ways, kernel, **sizes) for rows in (16, 60, 240)]
    announced, nano = _flow_sizes(MODEL.flow, STACK.width), _FlowSizes(256, 3, 64, 128)
    ways = (Implementation.REFERENCE, Implementation.HOISTED)
    ways += (kernel,) if backend == "tpu" else ()
    return found + [_flow(each, rows, jnp.bfloat16, ways)
                    for each in (announced, nano) for rows in (1, 8)]  # fmt: skip


# ---------------------------------------------------------------- attention


def _announced(kind: str) -> AttentionConfig:
    return AttentionConfig(**STACK[kind])


def _cpu_attention() -> list[Case]:
    """nano's global layer, and larger ones: new slots of a micro-turn, and one at a time."""
    nano = AttentionConfig(heads=2, kv_heads=1, head_width=64, window=None, bias_extent=192)
    far = AttentionConfig(heads=8, kv_heads=4, head_width=64, window=None, bias_extent=512)
    near = dataclasses.replace(far, window=512, bias_extent=512)
    kernel = Implementation.REFERENCE
    return [
        _attention(nano, "global", 1, 5, 1024, 1, kernel),
        _attention(nano, "global", 1, 1, 1024, 1, kernel),
        _attention(far, "global", 1, 20, 8192, 6, kernel),
        _attention(far, "global", 1, 1, 8192, 6, kernel),
        _attention(far, "global", 4, 20, 4096, 4, kernel),
        _attention(near, "local", 1, 20, 640, 64, kernel),
    ]


def _attention(
    heads: AttentionConfig,
    kind: str,
    lanes: int,
    slots: int,
    places: int,
    layers: int,
    kernel: Implementation,
) -> Case:
    """Calls of `layers` layers in turn, the store of each full; `kernel` REFERENCE: on CPU."""
    N, K, H, Q = heads.heads, heads.kv_heads, heads.head_width, heads.bias_extent
    dtype = jnp.float32 if kernel is Implementation.REFERENCE else jnp.bfloat16
    scale = 1.0 / H

    def make():
        keys = jax.random.split(jax.random.key(0), 4)
        draw = lambda key, *shape: jax.random.normal(key, shape, dtype)
        kv = (draw(key, layers, lanes, places, K, H) for key in keys[2:])
        bias = draw(keys[1], lanes, slots, N, Q)
        return (*kv, bias), draw(keys[0], lanes, slots, N, H)

    def where():
        place = jnp.broadcast_to(jnp.arange(places, dtype=jnp.int32)[None], (lanes, places))
        return place[:, -slots:], place

    def by_kernel(arguments, query, index, implementation):
        asked, place = where()
        return attention.microturn_attention(
            query, *arguments, queries=attention.Places(asked, asked),
            keys=attention.Places(place, place), scale=scale, window=heads.window,
            layer=index % layers, implementation=implementation,
        )  # fmt: skip

    def in_blocks(arguments, query, index):
        asked, place = where()
        key, value, bias = arguments
        return attend_in_cache(
            query, key, value, index % layers, bias, queries=Whereabouts(asked, asked),
            keys=Whereabouts(place, place), heads=heads, scale=scale, length_scale_BT=None,
        )  # fmt: skip

    ways: dict[str, Way] = {
        "reference": functools.partial(by_kernel, implementation=Implementation.REFERENCE)
    }
    live = LIVE_ON_CPU if kernel is Implementation.REFERENCE else kernel.value
    if kernel is Implementation.REFERENCE:
        ways[live] = in_blocks
        ways["native"] = functools.partial(by_kernel, implementation=Implementation.NATIVE)
    else:
        ways[live] = functools.partial(by_kernel, implementation=kernel)
    filled = places if heads.window is None else min(places, heads.window + slots)
    item = jnp.dtype(dtype).itemsize
    count = attention.count(
        lanes=lanes, slots=slots, heads=N, kv_heads=K, head_width=H, filled=filled, extent=Q,
        item=item,
    )  # fmt: skip
    about = {"kind": kind, "lanes": lanes, "slots": slots, "places": places, "heads": N,
             "kv_heads": K, "head_width": H, "layers_in_turn": layers}  # fmt: skip
    stored = layers * 2 * lanes * places * K * H * item
    return Case("microturn_attention", about, count, stored, make, ways, live)


# ---------------------------------------------------------------- experts


def _cpu_experts() -> list[Case]:
    """nano's experts, those of the benches' `small`, and a layer beyond a cache of 32 MiB."""
    ways = (
        Implementation.REFERENCE, Implementation.TOUCHED, Implementation.BLOCKS,
        Implementation.NATIVE,
    )  # fmt: skip
    shapes = (
        {"width": 128, "inner": 96, "number": 4, "per_row": 2, "turns": 1},
        {"width": 512, "inner": 256, "number": 16, "per_row": 4, "turns": 4},
        {"width": 512, "inner": 512, "number": 32, "per_row": 4, "turns": 8},
    )
    return [
        _experts(rows, ways=ways, dtype=jnp.float32, kernel=Implementation.REFERENCE, **shape)
        for shape in shapes
        for rows in (1, 4, 16, 64)
    ]


def _experts(
    rows: int,
    turns: int,
    dtype,
    ways: tuple[Implementation, ...],
    kernel: Implementation,
    *,
    width: int,
    inner: int,
    number: int,
    per_row: int,
) -> Case:
    """Calls with `turns` draws of even choices in turn."""
    chosen = _choices(rows, number, per_row, turns)
    touched = round(float(np.mean([len(np.unique(each)) for each in chosen])))

    def make():
        keys = jax.random.split(jax.random.key(1), 4)
        draw = lambda key, *shape: jax.random.normal(key, shape, dtype) * shape[-2] ** -0.5
        x = draw(keys[0], rows, width)
        weights = jnp.asarray(np.random.default_rng(1).random((rows, per_row)), jnp.float32)
        matrices = ((width, inner), (width, inner), (inner, width))
        drawn = (draw(key, number, *s) for key, s in zip(keys[1:], matrices, strict=True))
        return (jnp.asarray(chosen, jnp.int32), weights, *drawn), x

    def call(arguments, x, index, implementation):
        choices, *rest = arguments
        return experts.mix(x, choices[index % turns], *rest, implementation=implementation)

    item = jnp.dtype(dtype).itemsize
    count = experts.count(
        rows=rows, width=width, inner=inner, reached=touched,
        computed=-(-rows * per_row // touched), item=item,
    )  # fmt: skip
    about = {"rows": rows, "width": width, "inner": inner, "number": number, "per_row": per_row,
             "touched": touched}  # fmt: skip
    return Case(
        "experts", about, count, 3 * len(np.unique(chosen)) * width * inner * item, make,
        {each.value: functools.partial(call, implementation=each) for each in ways},
        experts.choose(kernel, rows, number, per_row).value,
    )  # fmt: skip


def _choices(rows: int, number: int, per_row: int, turns: int) -> np.ndarray:
    """int32 ``[turns, rows, per_row]``, distinct in a row; a single row's go round all experts."""
    rng = np.random.default_rng(0)
    if rows == 1 and turns * per_row == number:
        return rng.permutation(number).reshape(turns, 1, per_row)
    draw = lambda: np.stack([rng.permutation(number)[:per_row] for _ in range(rows)])
    return np.stack([draw() for _ in range(turns)])


# ---------------------------------------------------------------- flow head


@dataclasses.dataclass(frozen=True)
class _FlowSizes:
    width: int
    blocks: int
    features: int
    state: int  # width of the transformer's state
    steps: int = 8
    frames: int = 16
    bands: int = 80


def _flow_sizes(model, state: int) -> _FlowSizes:
    return _FlowSizes(model.width, model.blocks, model.time_features, state, model.steps)


def _cpu_flow() -> list[Case]:
    """nano's head, and one beyond a cache of 32 MiB."""
    ways = (Implementation.REFERENCE, Implementation.HOISTED)
    return [
        _flow(sizes, rows, jnp.float32, ways)
        for sizes in (_FlowSizes(256, 3, 64, 128), _FlowSizes(1024, 4, 64, 512))
        for rows in (1, 4)
    ]


def _flow(sizes: _FlowSizes, rows: int, dtype, ways: tuple[Implementation, ...]) -> Case:
    """All steps of the head. Least bytes: what each step needs once per step, what no step
    changes (the matrices of the modulations) once."""
    W, blocks, chunk = sizes.width, sizes.blocks, sizes.frames * sizes.bands

    def make():
        shapes = {
            "input": (chunk, W), "condition": (sizes.state, W), "time_in": (sizes.features, W),
            "time_out": (W, W), "modulation": (blocks, W, 3 * W),
            "modulation_bias": (blocks, 3 * W), "up": (blocks, W, 2 * W),
            "down": (blocks, 2 * W, W), "final_modulation": (W, 2 * W), "output": (W, chunk),
        }  # fmt: skip
        keys = jax.random.split(jax.random.key(2), len(shapes) + 2)
        draw = lambda key, shape: (jax.random.normal(key, shape) * shape[-2] ** -0.5).astype(dtype)
        drawn = {n: draw(k, s) for k, (n, s) in zip(keys[2:], shapes.items(), strict=True)}
        inside = ("modulation", "modulation_bias", "up", "down")
        params = {name: leaf for name, leaf in drawn.items() if name not in inside}
        params["blocks"] = {name: drawn[name] for name in inside}
        noise = jax.random.normal(keys[0], (rows, sizes.frames, sizes.bands), jnp.float32)
        return (params, draw(keys[1], (rows, sizes.state))), noise  # float32, as the live step's

    def call(arguments, noise, index, implementation):
        params, condition = arguments
        return flow.sample(
            params, noise, condition, steps=sizes.steps, implementation=implementation
        )

    item = jnp.dtype(dtype).itemsize
    stepped = flow.count(
        rows=rows, steps=sizes.steps, blocks=blocks, width=W, chunk=chunk, item=item,
        where=flow.Residency.STREAMED,
    )  # fmt: skip
    guides = (3 * blocks + 2 + 1) * W * W + (sizes.features + sizes.state) * W
    ends = 2 * W * chunk * item * (sizes.steps - 1)  # `count` has them once: a kernel keeps them
    count = Count(
        bytes=stepped.bytes + guides * item + (0 if item == 2 else ends),
        flops=stepped.flops + 2 * rows * sizes.steps * (3 * blocks + 2) * W * W,
        transcendentals=stepped.transcendentals,
    )
    weights = (7 * blocks + 3) * W * W + 2 * W * chunk + (sizes.features + sizes.state) * W
    timed: dict[str, Way] = {
        each.value: functools.partial(call, implementation=each) for each in ways
    }
    about = {"rows": rows, "steps": sizes.steps, "width": W, "blocks": blocks}
    return Case("flow head", about, count, weights * item, make, timed, ways[-1].value)
