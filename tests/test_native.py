"""What C++ computes on CPU: products, convolutions, gradients of a whole model, and building it.

In: random numbers, a tiny model, compilers that are not there or fail. Out: sums in float64 and
what XLA computes, to rounding; rows that are the same bits whatever others are there; errors that
say what is missing. Attention, experts and live steps are held beside the other implementations
(`test_kernels_*`, `test_lane_programs`, `test_training_on_cpu`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels import attention as att
from interaction.kernels import experts, native, native_train
from interaction.kernels.implementation import Implementation
from interaction.kernels.streamed import MANY_ROWS, Row, project
from interaction.models import attention, transformer
from interaction.models.cache import init_cache
from interaction.models.checkpoint import computed_by, load_model, save_model
from interaction.models.config import PositionScheme
from interaction.models.quantise import halve_matrices
from tests.kernels_for_tests import needs_compiler
from tests.models_for_tests import random_params, tiny

NATIVE = Implementation.NATIVE


@pytest.fixture(autouse=True)
def _compiler():
    needs_compiler()


# ---------------------------------------------------------------------------- live calls


@pytest.mark.parametrize(("inputs", "outputs"), [(512, 256), (100, 37), (7, 33), (64, 8200)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_products_with_a_row_of_a_stack(inputs, outputs, dtype):
    rng = np.random.default_rng(0)
    stack = jnp.asarray(20 * rng.normal(size=(3, inputs, outputs)), dtype)
    scale = jnp.asarray(rng.uniform(0.5, 2, (3, 1, outputs)), jnp.float32)
    scale = scale if dtype == "int8" else None
    x = jnp.asarray(rng.normal(size=(2, 11, inputs)), jnp.float32)
    found = project(x, Row(stack, jnp.int32(2), scale), native=True)
    wanted = np.asarray(x, np.float64) @ np.asarray(stack[2].astype(jnp.float32), np.float64)
    wanted = wanted if scale is None else wanted * np.asarray(scale[2], np.float64)
    np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())
    # A row is the same bits alone, and in any number of rows.
    for rows in (1, 2, 3, 5, 9):
        some = project(x[0, :rows], Row(stack, jnp.int32(2), scale), native=True)
        np.testing.assert_array_equal(some, found[0, :rows])


def test_products_over_two_axes():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 5, 3, 8)), jnp.float32)
    stack = jnp.asarray(rng.normal(size=(4, 3, 8, 20)), jnp.float32)
    found = project(x, Row(stack, jnp.int32(1)), contract=2, native=True)
    np.testing.assert_allclose(found, jnp.tensordot(x, stack[1], 2), atol=1e-5)


@pytest.mark.parametrize("rows", [2, 9])
def test_int8_experts_and_rows_that_others_do_not_touch(rows):
    rng = np.random.default_rng(2)
    shapes = ((2, 5, 24, 20), (2, 5, 24, 20), (2, 5, 20, 24))
    stacks = [jnp.asarray(rng.integers(-127, 128, shape), jnp.int8) for shape in shapes]
    scales = tuple(
        jnp.asarray(rng.uniform(0.001, 0.01, (2, 5, 1, shape[-1])), jnp.float32) for shape in shapes
    )
    x = jnp.asarray(rng.normal(size=(rows, 24)), jnp.float32)
    chosen = jnp.asarray([rng.permutation(5)[:2] for _ in range(rows)], jnp.int32)
    weights = jnp.asarray(rng.uniform(size=(rows, 2)), jnp.float32)

    def mixed(implementation, rows=rows):
        return experts.mix(
            x[:rows], chosen[:rows], weights[:rows], *stacks, layer=1, scales=scales,
            implementation=implementation,
        )  # fmt: skip

    np.testing.assert_allclose(mixed(NATIVE), mixed(Implementation.TOUCHED), atol=1e-5)
    np.testing.assert_array_equal(mixed(NATIVE)[:1], mixed(NATIVE, rows=1))
    with pytest.raises(ValueError, match="BLOCKS reads no int8; TOUCHED and NATIVE do"):
        mixed(Implementation.BLOCKS)


def test_what_lies_in_empty_places_of_the_cache_is_not_read_into_anything():
    """Numbers beyond all others in places without an order, before and after filled ones."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    query, key, value = draw(1, 3, 2, 32), draw(1, 200, 2, 32), draw(1, 200, 2, 32)
    order = np.where((np.arange(200) > 4) & (np.arange(200) < 150), np.arange(200), -1)[None]
    keys = att.Places(jnp.asarray(order, jnp.int32), jnp.asarray(order, jnp.int32))
    queries = att.Places(*[jnp.asarray([[147, 148, 149]], jnp.int32)] * 2)

    def attended(key, value):
        return att.microturn_attention(
            query, key, value, None, queries=queries, keys=keys, scale=0.2, implementation=NATIVE
        )

    empty = jnp.asarray(order < 0)[..., None, None]
    strange = attended(jnp.where(empty, 1e30, key), jnp.where(empty, 1e30, value))
    np.testing.assert_array_equal(strange, attended(key, value))


def test_extreme_gates_and_numbers_that_are_none():
    """SiLU far on both sides is what it is in float64; what is no number stays none, in its row."""
    stacks = [jnp.ones((1, 16, 16)), jnp.ones((1, 16, 16)), jnp.ones((1, 16, 16)) / 16]
    values = jnp.asarray([-20.0, -5.0, 0.0, 5.0, 20.0, np.nan], jnp.float32)
    x = jnp.broadcast_to(values[:, None], (6, 16)) / 2
    chosen, weights = jnp.zeros((6, 1), jnp.int32), jnp.ones((6, 1))
    found = [
        experts.mix(x, chosen, weights, *stacks, implementation=NATIVE),
        native_train.experts(x, chosen, weights, *stacks),
    ]
    gate = np.asarray(x, np.float64).sum(1)
    wanted = gate / (1 + np.exp(-gate)) * gate
    for each in found:
        np.testing.assert_allclose(each[:, 0], wanted, rtol=1e-5, atol=1e-30)
        assert np.isnan(each[5]).all() and np.isfinite(each[:5]).all()


def test_types_that_differ_are_told():
    x, chosen, weights = jnp.ones((1, 4)), jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1))
    half = jnp.ones((1, 4, 4), jnp.bfloat16)
    with pytest.raises(ValueError, match="of one type, they are float32, bfloat16, float32"):
        experts.mix(x, chosen, weights, jnp.ones((1, 4, 4)), half, jnp.ones((1, 4, 4)),
                    implementation=NATIVE)  # fmt: skip
    stack = jnp.ones((1, 4, 4), jnp.float16)
    with pytest.raises(ValueError, match="one of float32, bfloat16, int8, not float16"):
        project(x, Row(stack, jnp.int32(0)), native=True)
    place, store = (jnp.zeros((1, 1), jnp.int32),) * 2, jnp.ones((1, 1, 1, 1, 4), jnp.int8)
    with pytest.raises(ValueError, match="keys and values must be one of float32, bfloat16, not"):
        native.attend(
            jnp.ones((1, 1, 1, 4)), store, store, jnp.int32(0), None, queries=place, keys=place,
            scale=1.0, window=None, length_scale_BT=None,
        )  # fmt: skip


def test_matrices_in_bfloat16_move_logits_a_little():
    """Half of the bytes, one part in 256 of each number; states stay float32."""
    config = computed_by(tiny(), NATIVE)
    params = random_params(config)
    stack = config.transformer
    cache = init_cache(stack, 1, local_slots=20, global_slots=40, dtype=jnp.float32)
    place = jnp.arange(5, dtype=jnp.int32)[None]

    def scores(tree):
        hidden, _, _ = transformer.run(
            tree, transformer.embed_tokens(tree, place + 3, stack), stack, position_BT=place,
            valid_BT=place >= 0, cache=cache,
        )  # fmt: skip
        assert hidden.dtype == jnp.float32
        return np.asarray(transformer.logits(tree, hidden[:, -1], stack, live=True))

    whole = scores(params["transformer"])
    change = np.abs(scores(halve_matrices(params)["transformer"]) - whole).max()
    assert 0 < change < 0.05 * whole.std()


# ---------------------------------------------------------------------------- training


@pytest.mark.parametrize(("taps", "channels", "slots"), [(4, 37, 19), (3, 16, 2), (1, 5, 4)])
def test_convolutions_and_their_gradients(taps, channels, slots):
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(2, slots, channels)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(channels, taps)), jnp.float32)
    gradient = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    by_xla = lambda x, weight: attention.short_convolution(x, weight, None, None)[0]
    results = []
    for function in (native_train.short_convolution, by_xla):
        found, back = jax.vjp(function, x, weight)
        results.append([found, *back(gradient)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("contract", [1, 2])
def test_products_of_many_rows_and_their_gradients(contract):
    rng = np.random.default_rng(5)
    x = jnp.asarray(rng.normal(size=(2, MANY_ROWS, 3, 8)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(3, 8, 5, 2)[2 - contract :]), jnp.float32)
    results = []
    for by_cpp in (True, False):
        value, back = jax.vjp(
            lambda x, w, by_cpp=by_cpp: project(x, w, contract=contract, native=by_cpp), x, weight
        )
        results.append([value, *back(jnp.cos(value))])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("rotary", [False, True])
def test_a_model_and_all_its_gradients(rotary):
    """Sliding and global layers, dense ones and experts, a row that ends early."""
    changes = {"position_scheme": PositionScheme.ROTARY} if rotary else {}
    config = tiny(**changes)
    params = random_params(config)["transformer"]
    tokens = jnp.asarray(np.random.default_rng(6).integers(0, 250, (2, 75)), jnp.int32)
    valid = jnp.arange(75)[None] < jnp.asarray([[75], [50]])

    def loss(params, stack):
        scores = transformer.forward_tokens(params, tokens, stack, valid_BT=valid)
        return jnp.sum(jnp.sin(scores) * valid[..., None]) / 75

    by_cpp = computed_by(config, NATIVE).transformer
    results = [
        jax.jit(jax.value_and_grad(lambda p, stack=stack: loss(p, stack)))(params)
        for stack in (config.transformer, by_cpp)
    ]
    assert float(results[0][0]) == pytest.approx(float(results[1][0]), abs=2e-4)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(results[0][1]), jax.tree.leaves(results[1][1]),
        strict=True,
    ):  # fmt: skip
        size = float(jnp.abs(one).max())
        np.testing.assert_allclose(one, other, atol=1e-4 * size + 1e-6, err_msg=str(path))


# ---------------------------------------------------------------------------- building


def test_a_library_is_built_once_and_kept(tmp_path):
    made = native.build(tmp_path)
    before = made.stat().st_mtime_ns
    assert native.build(tmp_path) == made and made.stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [made]


def test_no_compiler_is_told_with_its_name(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(native.NativeError, match="CXX=no-such-compiler -m64 was not found"):
        native.build(tmp_path)


def test_a_compiler_that_fails_leaves_nothing_and_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-no-such-flag"))
    with pytest.raises(native.NativeError, match="no-such-flag"):
        native.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mesh_is_refused():
    config = computed_by(tiny(), NATIVE).transformer
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    with (
        jax.set_mesh(mesh),
        pytest.raises(ValueError, match="NATIVE computes on one device; the mesh is"),
    ):
        transformer.forward_tokens(
            random_params(tiny())["transformer"], jnp.ones((2, 8), jnp.int32), config
        )


def test_only_a_cpu_is_served(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(native.NativeError, match="is for CPU; jax runs on tpu"):
        project(jnp.ones((1, 4)), Row(jnp.ones((1, 4, 2)), jnp.int32(0)), native=True)


def test_who_computed_is_no_property_of_a_checkpoint(tmp_path):
    config = tiny()
    save_model(tmp_path / "made", random_params(config), computed_by(config, NATIVE))
    assert load_model(tmp_path / "made")[1] == config
    read = load_model(tmp_path / "made", implementation=NATIVE)[1]
    assert read == computed_by(config, NATIVE)
    assert dataclasses.replace(read, transformer=config.transformer) == config
