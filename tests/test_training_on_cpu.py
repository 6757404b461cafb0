"""What training on CPU computes in its own way: sorted experts, tiles of attention, tubelets.

In: random rows, choices, sequences and tubelets. Out: values and gradients of every input held
against the definitions that other platforms run (`moe.gated`, `attention.attend`, `vision_stem`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels import experts_sorted, native, native_train
from interaction.kernels.streamed import project
from interaction.models import attention, attention_tiles, embed, moe
from interaction.models.attention import Whereabouts
from interaction.models.attention_tiles import Bias
from interaction.models.config import AttentionConfig
from interaction.streams.image import normalise_patches
from tests.models_for_tests import random_params, tiny

D, F = 6, 5


def with_gradients(function, gradient, *inputs):
    """The value of `function` and the gradients of all inputs, against a fixed gradient."""
    run = jax.jit(lambda *inputs: (function(*inputs), *jax.vjp(function, *inputs)[1](gradient)))
    return [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(run(*inputs))]


def agree(found, wanted, tolerance):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


# ---------------------------------------------------------------------------- experts


def choices(kind: str, slots: int, experts: int, per_slot: int) -> np.ndarray:
    """Distinct experts of every slot: any, all slots the same ones, or some slots not there."""
    rng = np.random.default_rng(3)
    if kind == "same":
        return np.tile(np.arange(per_slot)[::-1], (slots, 1))
    chosen = np.argsort(rng.normal(size=(slots, experts)), axis=1)[:, :per_slot]
    if kind == "absent":
        chosen[slots // 2 :: 3] = -1
    return chosen


@pytest.mark.parametrize(
    ("kind", "slots", "experts", "per_slot", "rows", "dtype"),
    [
        ("any", 21, 4, 2, (8, 2), jnp.float32),
        ("same", 17, 4, 3, (8, 4), jnp.float32),  # experts that nobody chose; the worst load
        ("absent", 19, 7, 2, (4, 4), jnp.float32),
        ("any", 3, 5, 1, (8, 8), jnp.float32),  # no tile is ever full
        ("any", 3, 5, 1, experts_sorted.ROWS, jnp.float32),  # a whole one is more than there is
        ("any", 21, 4, 2, (8, 2), jnp.bfloat16),
    ],
)
def test_sorted_experts_give_what_all_experts_give(kind, slots, experts, per_slot, rows, dtype):
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    x, gradient = draw(slots, D), draw(slots, D)
    matrices = (draw(experts, D, F), draw(experts, D, F), draw(experts, F, D))
    weights = jnp.asarray(rng.uniform(0.2, 1.0, (slots, per_slot)), jnp.float32)
    chosen = jnp.asarray(choices(kind, slots, experts, per_slot), jnp.int32)

    def shares(weights):
        return moe.dense_weights(chosen[None], weights[None], experts)

    def every(x, weights, *matrices):
        return moe.gated(*matrices, x[None], shares(weights))[0]

    def alone(x, weights, *matrices):
        return experts_sorted.mix(x, chosen, weights, *matrices, rows)

    def by_cpp(x, weights, *matrices):
        return native_train.experts(x, chosen, weights, *matrices)

    found = with_gradients(alone, gradient, x, weights, *matrices)
    wanted = with_gradients(every, gradient, x, weights, *matrices)
    agree(found, wanted, 1e-5 if dtype == jnp.float32 else 5e-2)
    if dtype == jnp.float32 and native.compiler():
        agree(with_gradients(by_cpp, gradient, x, weights, *matrices), wanted, 1e-5)


def test_sorted_experts_drop_nothing_and_mix_up_no_weights():
    """A variant with the weights of a slot's experts exchanged is found out."""
    rng = np.random.default_rng(2)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    x, matrices = draw(9, D), (draw(3, D, F), draw(3, D, F), draw(3, F, D))
    chosen = jnp.asarray(choices("any", 9, 3, 2), jnp.int32)
    weights = jnp.asarray(rng.uniform(0.2, 1.0, (9, 2)), jnp.float32)
    right = np.zeros((9, D))
    for slot in range(9):
        for expert, weight in zip(np.asarray(chosen[slot]), np.asarray(weights[slot]), strict=True):
            gate, up, down = (np.asarray(m[expert], np.float64) for m in matrices)
            inner = np.asarray(x[slot], np.float64) @ gate
            hidden = inner / (1 + np.exp(-inner)) * (np.asarray(x[slot], np.float64) @ up)
            right[slot] += weight * (hidden @ down)
    found = experts_sorted.mix(x, chosen, weights, *matrices, (4, 2))
    np.testing.assert_allclose(found, right, atol=1e-4)
    exchanged = experts_sorted.mix(x, chosen, weights[:, ::-1], *matrices, (4, 2))
    assert np.abs(exchanged - right).max() > 0.01


def test_tiles_that_do_not_divide_are_refused():
    x, chosen = jnp.ones((3, D)), jnp.zeros((3, 1), jnp.int32)
    matrices = (jnp.ones((2, D, F)), jnp.ones((2, D, F)), jnp.ones((2, F, D)))
    with pytest.raises(ValueError, match=r"rows=\(48, 32\)"):
        experts_sorted.mix(x, chosen, jnp.ones((3, 1)), *matrices, (48, 32))


# ---------------------------------------------------------------------------- attention


def test_weights_of_low_precision_are_summed_in_full():
    """1,024 ones sum to 256 where bfloat16 sums them."""
    ones = jnp.ones((1, 1, 1024), jnp.bfloat16)
    assert float(attention_tiles._weighed(ones, ones)[0, 0, 0]) == 1024.0


@pytest.mark.parametrize(
    ("table", "rows", "keys"), [((2, 5), 4, 9), ((3, 9), 4, 11), ((2, 20), 5, 7), ((1, 3), 6, 6)]
)
def test_each_place_of_a_tile_has_its_profiles_by_distance(table, rows, keys):
    profiles = np.random.default_rng(0).normal(size=table).astype(np.float32)
    found = attention_tiles.shifted_table(jnp.asarray(profiles), rows, keys)
    assert found.shape == (rows, table[0], keys)
    for place in range(rows):
        for key in range(keys):
            distance = place + keys - rows - key
            known = 0 <= distance < table[1]
            wanted = profiles[:, distance] if known else np.zeros(table[0], np.float32)
            np.testing.assert_array_equal(found[place, :, key], wanted)


CASES = [
    # window, extent, slots, length scale, until, dtype
    (6, 6, 25, False, False, jnp.float32),
    (7, 4, 23, False, False, jnp.float32),  # a prime window, a short extent
    (40, 64, 70, False, False, jnp.float32),  # more than one tile to a window
    (17, 9, 83, True, False, jnp.float32),
    (None, 9, 26, False, False, jnp.float32),
    (None, 30, 22, True, True, jnp.float32),
    (None, 9, 26, False, False, jnp.bfloat16),
]


@pytest.mark.parametrize(("window", "extent", "slots", "scaled", "until", "dtype"), CASES)
def test_tiles_give_what_attention_gives(window, extent, slots, scaled, until, dtype):
    B, N, K, H, r = 2, 6, 3, 4, 5
    rng = np.random.default_rng(5)
    heads = AttentionConfig(N, K, H, window, extent)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    position = jnp.asarray(np.tile(np.arange(slots), (B, 1)), jnp.int32)
    there = np.asarray(position) < np.array([[slots], [slots - 3]])
    last = np.where(rng.uniform(size=(B, slots)) < 0.3, position + 4, 10**6) if until else None
    where = Whereabouts(position, jnp.where(there, position, -1), until=last)
    shared = {
        "keys": where,
        "heads": heads,
        "scale": 1 / H,
        "length_scale_BT": 1.0 + 0.1 * position if scaled else None,
    }
    gradient = jnp.where(there[..., None, None], draw(B, slots, N, H), 0)

    def whole(query, key, value, bias):
        out = attention.attend(
            query, key, value, bias.by_distance(), queries=where, consecutive=True, **shared
        )
        return jnp.where(there[..., None, None], out, 0)

    def tiles(query, key, value, bias):
        out = attention_tiles.in_tiles(query, key, value, bias, **shared)
        return jnp.where(there[..., None, None], out, 0)

    inputs = (
        draw(B, slots, N, H),
        draw(B, slots, K, H),
        draw(B, slots, K, H),
        Bias(draw(B, slots, N, r), draw(r, extent)),
    )

    def by_cpp(query, key, value, bias):
        out = attention_tiles.attend_whole(
            query, key, value, bias, queries=where, consecutive=True, native=True, **shared
        )
        return jnp.where(there[..., None, None], out, 0)

    found = with_gradients(tiles, gradient, *inputs)
    wanted = with_gradients(whole, gradient, *inputs)
    agree(found, wanted, 1e-5 if dtype == jnp.float32 else 8e-2)
    if dtype == jnp.float32 and native.compiler():
        agree(with_gradients(by_cpp, gradient, *inputs), wanted, 1e-5)


# ---------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(("used", "block"), [(7, 4), (8, 4), (1, 16), (11, 3)])
def test_tubelets_that_are_there_are_computed_and_train_as_all_would(used, block, monkeypatch):
    """Blocks full and not, and tubelets of no slot, whose states are zeros and train nothing."""
    monkeypatch.setattr(embed, "TUBELETS", block)
    config, rows = tiny(), 11
    rng = np.random.default_rng(4)
    params = random_params(config)["vision"]
    side = config.vision.patch
    shape = (rows, config.vision.frames, side, side, config.vision.channels)
    patches = jnp.asarray(rng.integers(0, 256, shape), jnp.uint8)
    there = jnp.asarray(rng.permutation(np.arange(rows) < used))
    gradient = jnp.asarray(rng.normal(size=(rows, config.transformer.width)), jnp.float32)

    def every(params):
        states = embed.vision_stem(params, normalise_patches(patches), config)
        return jnp.where(there[:, None], states, 0)

    def seen(params):
        return embed.used_tubelets(params, patches, there, config)

    wanted = with_gradients(every, gradient, params)
    agree(with_gradients(seen, gradient, params), wanted, 1e-5)


@pytest.mark.parametrize(
    ("x", "weight", "contract"), [((3, 5, 4), (4, 7), 1), ((3, 5, 4), (4, 2, 6), 1),
                                  ((3, 5, 2, 4), (2, 4, 7), 2)],
)  # fmt: skip
@pytest.mark.parametrize("dtypes", ["float32 float32", "float32 bfloat16", "bfloat16 bfloat16"])
def test_a_product_trains_as_the_derived_one(x, weight, contract, dtypes):
    """Pixels in float32 meet weights in bfloat16, too."""
    rng = np.random.default_rng(6)
    x_dtype, weight_dtype = dtypes.split()
    inputs = (
        jnp.asarray(rng.normal(size=x), x_dtype),
        jnp.asarray(rng.normal(size=weight), weight_dtype),
    )
    derived = lambda x, weight: jnp.tensordot(x, weight, contract)
    ours = lambda x, weight: project(x, weight, contract=contract)
    made = derived(*inputs)
    gradient = jnp.asarray(rng.normal(size=made.shape), made.dtype)
    wanted = with_gradients(derived, gradient, *inputs)
    tolerance = 1e-5 if dtypes == "float32 float32" else 2e-2
    agree(with_gradients(ours, gradient, *inputs), wanted, tolerance)
