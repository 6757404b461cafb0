"""What a live call reads where it lies equals what training cuts out: weights, experts, cache.

In: random stacks, routers and caches with gaps, wrapped rings and lanes of unequal age. Out:
products, mixed states and attended values held against the plain formulas, and to the bit against
themselves with the other lanes' content changed.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels import streamed
from interaction.kernels.streamed import Row, project, tile_height
from interaction.models import attention, attention_blocks, moe
from interaction.models.attention import Whereabouts
from interaction.models.attention_blocks import attend_in_cache
from interaction.models.config import AttentionConfig
from interaction.models.quantise import quantise_matrices
from tests.models_for_tests import tiny

RNG = np.random.default_rng(3)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("tile_bytes", [1, 200, 1 << 20])
def test_a_product_by_tiles_is_the_product(monkeypatch, tile_bytes):
    monkeypatch.setattr(streamed, "TILE_BYTES", tile_bytes)
    x, stack = normal(2, 5, 4, 6), normal(3, 4, 6, 7)

    @jax.jit
    def both(x, stack, index):
        row = Row(stack, index)
        return project(x, row, contract=2), project(x, row.whole(), contract=2)

    for index in (0, 2):
        tiled, plain = both(x, stack, jnp.int32(index))
        assert tiled.shape == (2, 5, 7)
        np.testing.assert_allclose(plain, np.einsum("btih,iho->bto", x, stack[index]), atol=1e-4)
        np.testing.assert_allclose(tiled, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "row_bytes", "height"),
    [(512, 1024, 128), (48, 1 << 20, 1), (30, 16_000, 6), (7, 4, 7)],
)
def test_a_tile_divides_the_inputs_and_fits(inputs, row_bytes, height):
    assert tile_height(inputs, row_bytes) == height


def rows_of(params: dict) -> dict:
    """One layer's parameters as row 1 of stacks of 3 whose other rows are noise."""
    big = ("gate", "up", "down", "shared_gate", "shared_up", "shared_down")
    return {
        name: Row(jnp.stack([noise, value, noise]), jnp.int32(1)) if name in big else value
        for name, value in params.items()
        for noise in [jnp.full_like(value, 9.0)]
    }


@pytest.fixture(scope="module")
def layer() -> dict:
    c = tiny().transformer
    E, S, D, F = c.experts, c.shared_experts, c.width, c.expert_width
    shapes = {"router": (D, E + S), "bias": (E,), "gate": (E, D, F), "up": (E, D, F)}
    shapes |= {"down": (E, F, D), "shared_gate": (S, D, F), "shared_up": (S, D, F)}
    shapes |= {"shared_down": (S, F, D)}
    return {name: 0.4 * normal(*shape) for name, shape in shapes.items()} | {
        "scale": jnp.float32(1.3)
    }


@functools.cache
def mixed(live: bool):
    config = tiny().transformer

    def run(params, x, valid):
        return moe.mixture(rows_of(params) if live else params, x, valid, config)

    return jax.jit(run)


@pytest.mark.parametrize("valid", [[[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [0, 0, 0]]])
def test_touched_experts_give_what_all_experts_give(layer, valid):
    x, valid = normal(2, 3, tiny().transformer.width), jnp.asarray(valid, bool)
    out, load = mixed(True)(layer, x, valid)
    want, want_load = mixed(False)(layer, x, valid)
    np.testing.assert_allclose(out[valid], want[valid], atol=2e-5)
    np.testing.assert_array_equal(load.share, want_load.share)


def test_a_slot_does_not_see_which_experts_others_touch(layer):
    x = normal(2, 3, tiny().transformer.width)
    out, _ = mixed(True)(layer, x, jnp.ones((2, 3), bool))
    other, _ = mixed(True)(layer, x.at[1].set(-5.0), jnp.asarray([[True] * 3, [False] * 3]))
    np.testing.assert_array_equal(out[0], other[0])


# ---------------------------------------------------------------------------- the cache

B, T, S, L = 2, 3, 22, 3


@dataclasses.dataclass(frozen=True)
class Case:
    heads: AttentionConfig
    block: int
    spread: int = 32
    keys_left: int = 16
    length_scaled: bool = False
    biased: bool = True


CASES = {
    "one block, as they lie": Case(AttentionConfig(4, 2, 5, 9, 6), 64),
    "blocks, as they lie": Case(AttentionConfig(4, 2, 5, None, 6), 8, length_scaled=True),
    "blocks, by head": Case(AttentionConfig(4, 2, 5, 11, 6), 8, spread=1),
    "blocks, by head, keys right": Case(AttentionConfig(4, 2, 5, 11, 6), 8, 1, keys_left=5),
    "blocks, as many kv heads": Case(AttentionConfig(4, 4, 5, 11, 6), 8, spread=1),
    "one kv head": Case(AttentionConfig(3, 1, 5, None, 6), 7),
    "no bias": Case(AttentionConfig(4, 4, 5, None, 0), 8, biased=False),
}


def placed(ages=(17, 5)):
    """A wrapped ring and a young lane with gaps; the last T slots of each are the queries."""
    order = np.full((B, S), -1, np.int32)
    for lane, age in enumerate(ages):
        for slot in range(max(0, age + 9 * (1 - lane) - S), age + 9 * (1 - lane)):
            order[lane, slot % S] = slot
    order[0, 4] = -1  # evicted
    last = order.max(axis=1, keepdims=True)
    queries = last - np.arange(T)[None, ::-1]
    at = lambda x: Whereabouts(position=jnp.asarray(np.maximum(x, 0)), order=jnp.asarray(x))
    return at(queries.astype(np.int32)), at(order)


def attended(case: Case, arrays, queries, keys, *, shift: int = 0):
    """Both ways; `shift` moves the window of the blocks (a broken variant)."""
    query, key, value, bias = arrays
    scales = 1 + 0.1 * queries.position.astype(jnp.float32) if case.length_scaled else None
    kept = {"queries": queries, "keys": keys, "scale": 0.3, "length_scale_BT": scales}
    heads = case.heads
    if shift:
        heads = dataclasses.replace(heads, window=heads.window + shift)
    blocks = attend_in_cache(query, key, value, jnp.int32(1), bias, heads=heads, **kept)
    plain = attention.attend(
        query, key[1], value[1], bias, heads=case.heads, consecutive=False, **kept
    )
    return blocks, plain


def arrays_of(case: Case):
    N, K, H = case.heads.heads, case.heads.kv_heads, case.heads.head_width
    bias = normal(B, T, N, case.heads.bias_extent) if case.biased else None
    return 2 * normal(B, T, N, H), normal(L, B, S, K, H), normal(L, B, S, K, H), bias


@pytest.mark.parametrize("name", CASES)
def test_blocks_of_the_cache_give_what_the_whole_gives(monkeypatch, name):
    case = CASES[name]
    monkeypatch.setattr(attention_blocks, "BLOCK_SLOTS", case.block)
    monkeypatch.setattr(attention_blocks, "SPREAD_ROWS", case.spread)
    monkeypatch.setattr(attention_blocks, "KEYS_LEFT_ROWS", case.keys_left)
    cut, by_head = [], attention_blocks._by_head
    monkeypatch.setattr(attention_blocks, "_by_head", lambda x: cut.append(x) or by_head(x))
    run = jax.jit(functools.partial(attended, case))
    arrays = arrays_of(case)
    queries, keys = placed()
    blocks, plain = run(arrays, queries, keys)
    np.testing.assert_allclose(blocks, plain, atol=2e-5)
    # Of keys and values: both are cut head by head, or values alone, or none.
    assert len(cut) == (0 if case.spread > 1 else 1 if case.keys_left < 6 else 2)
    if name.startswith("blocks"):  # the other lane fuller and other: this one to the bit
        _, fuller = placed((17, 20))
        second = jnp.asarray([False, True])
        both = lambda new, old: jnp.where(second[:, None], new, old)
        keys = Whereabouts(both(fuller.position, keys.position), both(fuller.order, keys.order))
        changed = (arrays[0], arrays[1].at[:, 1].set(3.0), arrays[2].at[:, 1].set(-2.0), arrays[3])
        np.testing.assert_array_equal(run(changed, queries, keys)[0][0], blocks[0])


def test_a_window_off_by_one_shows(monkeypatch):
    case = CASES["blocks, by head"]
    monkeypatch.setattr(attention_blocks, "BLOCK_SLOTS", case.block)
    run = jax.jit(functools.partial(attended, case, shift=1))
    blocks, plain = run(arrays_of(case), *placed())
    assert np.abs(blocks - plain).max() > 1e-3


def test_int8_experts_give_live_what_they_give_in_training(layer):
    stored = {
        name: quantise_matrices(value) if value.ndim == 3 else value
        for name, value in layer.items()
    }
    x, valid = normal(2, 3, tiny().transformer.width), jnp.ones((2, 3), bool)
    rows = {
        name: Row.of(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), value), jnp.int32(1))
        if isinstance(value, dict)
        else value
        for name, value in stored.items()
    }

    def run(params):
        return jax.jit(lambda: moe.mixture(params, x, valid, tiny().transformer)[0])()

    np.testing.assert_allclose(run(rows), run(stored), atol=2e-5)
    assert np.abs(run(stored) - run(layer)).max() > 1e-5
