"""Micro-turn attention: every implementation against numpy, over one table of cases.

In: random queries and caches whose places were written out of order, partly empty, partly beyond
the filled length. Out: the Pallas kernels, interpreted, equal a loop over scores in float64.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels import attention as att
from interaction.kernels.implementation import Implementation
from tests.kernels_for_tests import interpreted, needs_gpu, races_found


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes of one call; the dimension key of `interaction.shapes` in words."""

    name: str
    lanes: int = 2
    slots: int = 5
    places: int = 300
    heads: int = 6
    kv_heads: int = 2
    width: int = 16
    extent: int | None = 150
    window: int | None = None
    filled: tuple[int, ...] | None = None
    scaled: bool = False
    layers: int | None = None
    ring: bool = False
    dtype: str = "float32"
    kept: str | None = None  # type of keys and values; None: `dtype`

    @property
    def tolerance(self) -> float:
        return 2e-2 if "bfloat16" in (self.dtype, self.kept) else 3e-5


CASES = (
    Case("global", filled=(300, 41)),
    Case("sliding_ring", window=70, extent=70, places=140, ring=True),
    Case("stacked_layers", layers=3, places=257, filled=(257, 129), scaled=True),
    Case("one_kv_head", heads=3, kv_heads=1, width=32, slots=19, lanes=1, extent=40),
    Case("no_bias", extent=None, window=60, heads=4, kv_heads=4, slots=11),
    Case("bfloat16", dtype="bfloat16", places=130, filled=(130, 7)),
    Case("one_query", slots=1, heads=3, kv_heads=3, width=32, lanes=1, places=130, extent=70),
    Case("few_queries", slots=2, heads=4, kv_heads=2, width=64, lanes=1, places=150, scaled=True),
    Case("keys_in_bfloat16", kept="bfloat16", places=130, filled=(130, 7), scaled=True),
)


def drawn(case: Case, seed: int = 0) -> dict:
    """Random arguments. Places hold random earlier positions, some none; a ring the last ones."""
    rng = np.random.default_rng(seed)
    B, T, S = case.lanes, case.slots, case.places
    dtype = jnp.dtype(case.dtype)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    stack = () if case.layers is None else (case.layers,)
    position, order = np.zeros((B, S), np.int32), np.full((B, S), -1, np.int32)
    asked, asked_order = np.zeros((B, T), np.int32), np.full((B, T), -1, np.int32)
    for b in range(B):
        length = S if case.filled is None else case.filled[b]
        seen = 3 * S if case.ring else length
        if case.ring:
            held = np.arange(seen - length, seen)
            position[b, held % S], order[b, held % S] = held, held
        else:
            held = np.sort(rng.choice(2 * length, length, replace=False))
            place = rng.permutation(length)
            position[b, place], order[b, place] = held, held
            order[b, place[:: max(length // 4, 2)]] = -1  # evicted
            seen = 2 * length
        real = T - b  # the last lane has an absent query
        asked[b, :real] = seen - 2 + np.arange(real)  # two of them were written already
        asked_order[b, :real] = asked[b, :real]
    kv = (*stack, B, S, case.kv_heads, case.width)
    kept = lambda x: x.astype(case.kept or case.dtype)
    filled = None if case.filled is None else jnp.asarray(case.filled, jnp.int32)
    if filled is not None:  # places beyond the length look alive and are not
        beyond = np.arange(S)[None] >= np.asarray(case.filled)[:, None]
        order[beyond] = 0
    return {
        "query_BTNH": normal(B, T, case.heads, case.width),
        "key": kept(normal(*kv)),
        "value": kept(normal(*kv)),
        "bias_BTNQ": None if case.extent is None else normal(B, T, case.heads, case.extent),
        "queries": att.Places(jnp.asarray(asked), jnp.asarray(asked_order)),
        "keys": att.Places(jnp.asarray(position), jnp.asarray(order)),
        "scale": 0.3,
        "filled_B": filled,
        "window": case.window,
        "length_scale_BT": jnp.asarray(1 + rng.random((B, T)), jnp.float32)
        if case.scaled
        else None,
        "layer": None if case.layers is None else jnp.int32(case.layers - 1),
    }


def by_loop(a: dict) -> np.ndarray:
    """The definition, one query and head at a time, in float64; absent queries give zeros."""
    f = lambda x: np.asarray(x, np.float64)
    query, key, value = f(a["query_BTNH"]), f(a["key"]), f(a["value"])
    if a["layer"] is not None:
        key, value = key[int(a["layer"])], value[int(a["layer"])]
    bias = None if a["bias_BTNQ"] is None else f(a["bias_BTNQ"])
    out, (B, T, N, _) = np.zeros(query.shape), query.shape
    qp, qo = np.asarray(a["queries"].position), np.asarray(a["queries"].order)
    kp, ko = np.asarray(a["keys"].position), np.asarray(a["keys"].order)
    for b, t, n in np.ndindex(B, T, N):
        if qo[b, t] < 0:
            continue
        k = n // (N // key.shape[2])
        factor = 1.0 if a["length_scale_BT"] is None else float(a["length_scale_BT"][b, t])
        apart = qp[b, t] - kp[b]
        seen = (ko[b] >= 0) & (ko[b] <= qo[b, t])
        if a["filled_B"] is not None:
            seen &= np.arange(len(seen)) < int(a["filled_B"][b])
        if a["window"] is not None:
            seen &= apart < a["window"]
        scores = factor * a["scale"] * (key[b, :, k] @ query[b, t, n])
        if bias is not None:
            near = (apart >= 0) & (apart < bias.shape[-1])
            scores[near] += factor * bias[b, t, n, apart[near]]
        weights = np.where(seen, np.exp(scores - scores[seen].max()), 0)
        out[b, t, n] = weights / weights.sum() @ value[b, :, k]
    return out


SMALL = {
    Implementation.PALLAS_TPU: att.AttentionBlocks(keys=128),
    Implementation.PALLAS_GPU: att.AttentionBlocks(keys=32, rows=16, splits=3),
}


def compiled(arguments: dict, implementation: Implementation):
    """One program of these shapes, as a function of a plan (None: made inside) and of the arrays,
    and the arrays; it is made where it is called first."""
    arrays = {k: v for k, v in arguments.items() if isinstance(v, (jax.Array, att.Places))}
    rest = {k: v for k, v in arguments.items() if k not in arrays}

    @jax.jit
    def run(arrays, plan):
        return att.microturn_attention(
            **arrays, **rest, planned=plan, blocks=SMALL.get(implementation),
            implementation=implementation,
        )  # fmt: skip

    return run, arrays


def compute(case: Case, arguments: dict, implementation: Implementation) -> np.ndarray:
    """The kernel interpreted, zeros at absent queries."""
    run, arrays = compiled(arguments, implementation)
    with interpreted(implementation):
        out = jax.block_until_ready(run(arrays, None))
    assert out.dtype == jnp.dtype(case.dtype)
    out = np.asarray(out, np.float64)
    assert np.isfinite(out).all()
    there = np.asarray(arguments["queries"].order >= 0)
    return np.where(there[:, :, None, None], out, 0)


@pytest.mark.parametrize("implementation", att.KNOWN, ids=lambda i: i.name)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_equals_a_loop(case, implementation):
    arguments = drawn(case)
    want = by_loop(arguments)
    got = compute(case, arguments, implementation)
    np.testing.assert_allclose(got, want, atol=case.tolerance)


SPARSE = Case("sparse", lanes=2, slots=3, places=260, heads=2, kv_heads=1, filled=(260, 150))
TPU = Implementation.PALLAS_TPU


def planned(arguments: dict, **changes) -> att.KeyBlocks:
    """The plan of a call, with other fields where `changes` names them."""
    a = {**arguments, **changes}
    extent = 0 if a["bias_BTNQ"] is None else a["bias_BTNQ"].shape[-1]
    return att.plan(
        a["queries"], a["keys"], a["filled_B"], window=a["window"], extent=extent, block=128
    )


def test_broken_plans_and_places_are_noticed():
    """What each mistake would compute differs from the definition by far; all is data, so one
    compiled kernel serves every variant."""
    arguments = drawn(SPARSE)
    run, arrays = compiled(arguments, TPU)
    want, good = by_loop(arguments), planned(arguments)
    there = np.asarray(arguments["queries"].order >= 0)[:, :, None, None]
    keys, change = good.keys, dataclasses.replace
    by_place = jnp.broadcast_to(jnp.arange(SPARSE.places, dtype=jnp.int32)[None], (2, 260))
    broken = {
        "length ignored": planned(arguments, filled_B=None),
        "place for position": change(good, keys=att.Places(by_place, keys.order)),
        "empty places seen": change(
            good, keys=att.Places(keys.position, jnp.maximum(keys.order, 0))
        ),
        "one block for all": change(good, entry=good.entry.at[1].set(good.entry[0])),
        "a chunk of distances short": change(good, chunks=good.chunks - (good.chunks > 0)),
        "no bias": change(good, chunks=jnp.zeros_like(good.chunks)),
    }
    with interpreted(TPU):
        got = np.where(there, run(arrays, good), 0)
        np.testing.assert_allclose(got, want, atol=SPARSE.tolerance)
        for name, plan in broken.items():
            wrong = np.where(there, run(arrays, plan), 0)
            assert np.abs(wrong - want).max() > 100 * SPARSE.tolerance, name


def test_no_race_between_transfers_and_use():
    arguments = drawn(dataclasses.replace(SPARSE, lanes=1, filled=(260,), slots=2))
    with interpreted(TPU, detect_races=True):
        run, arrays = compiled(arguments, TPU)
        jax.block_until_ready(run(arrays, None))
    assert not races_found()


@pytest.mark.parametrize(("change", "blocks"), [
    ({}, 8),                                     # every place of both lanes
    ({"filled_B": [130, 512]}, 6),               # a half-empty lane: its two blocks
    ({"filled_B": [0, 1]}, 2),                   # one each, that every lane may write
    ({"window": 200}, 4),                        # a window at the ring's end
    ({"window": 200, "start": 3635}, 6),   # wrapped: the window in a first and a last block
])  # fmt: skip
def test_blocks_that_nobody_sees_are_not_listed(change, blocks):
    S, T = 512, 10
    place = np.arange(S)
    newest = change.get("start", 4096 - S) + S - 1
    position = newest - (newest - place) % S  # a ring: the last S positions
    queries = np.arange(newest - T + 1, newest + 1)
    twice = lambda x: jnp.asarray(np.stack([x, x]), jnp.int32)
    where = att.Places(twice(queries), twice(queries)), att.Places(twice(position), twice(position))
    filled = change.get("filled_B")
    filled = None if filled is None else jnp.asarray(filled, jnp.int32)
    found = att.plan(*where, filled, window=change.get("window"), extent=100, block=128)
    assert int(found.start[-1]) == blocks
    assert len(set(np.asarray(found.entry)[:blocks].tolist())) == blocks
    if not change:  # only the newest 109 places are near enough for a bias of extent 100
        assert np.asarray(found.chunks)[:8].tolist() == [0, 0, 0, 1] * 2


def test_errors_name_the_values():
    arguments = drawn(SPARSE)
    with pytest.raises(ValueError, match="GROUPED does not exist for microturn_attention"):
        att.microturn_attention(**arguments, implementation=Implementation.GROUPED)
    with pytest.raises(ValueError, match="4 axes with layer=0"):
        att.microturn_attention(**{**arguments, "layer": 0}, implementation=TPU)
    with pytest.raises(ValueError, match="keys=100 must be a power of two"):
        att.AttentionBlocks(keys=100)
    with pytest.raises(ValueError, match=r"blocks.keys=64 must be a multiple of 128"):
        att.microturn_attention(
            **arguments, implementation=TPU, blocks=att.AttentionBlocks(keys=64)
        )


def test_counts_what_is_written_there():
    one = att.count(lanes=1, slots=20, heads=32, kv_heads=8, head_width=128, filled=131_072,
                    extent=1024, item=2)  # fmt: skip
    assert one.flops == 4 * 20 * 32 * 128 * 131_072
    cache = 2 * 131_072 * 8 * 128 * 2
    assert cache < one.bytes < 1.01 * cache
    assert one.estimate().flops == one.flops


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_on_a_gpu(case):
    """The Triton kernel itself, on shapes that its tiles take."""
    needs_gpu()
    arguments = drawn(case)
    got = att.microturn_attention(**arguments, implementation=Implementation.PALLAS_GPU)
    there = np.asarray(arguments["queries"].order >= 0)[:, :, None, None]
    got = np.where(there, np.asarray(got, np.float64), 0)
    np.testing.assert_allclose(got, by_loop(arguments), atol=max(case.tolerance, 1e-3))
