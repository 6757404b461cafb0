"""The flow head's steps in one kernel, against numpy.

In: random parameters, noise and states. Out: the reference, and the TPU kernel interpreted with
weights resident and streamed, equal a loop over rows and steps in float64; the memory bound holds.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels import flow, flow_tpu
from interaction.kernels.implementation import CHIPS, MEBIBYTE, Implementation
from tests.kernels_for_tests import flow_params, interpreted

ROWS, FRAMES, CHANNELS, STATE, FEATURES = 3, 5, 7, 11, 12


def drawn(width: int, blocks: int, dtype: str = "float32", seed: int = 0, rows: int = ROWS):
    """Random parameters, noise and states."""
    rng = np.random.default_rng(seed)
    chunk = FRAMES * CHANNELS

    def normal(*shape, spread=1.0):
        return jnp.asarray(spread * rng.normal(size=shape) * shape[-2] ** -0.5, jnp.dtype(dtype))

    params = flow_params(
        normal, chunk=chunk, state=STATE, features=FEATURES, width=width, blocks=blocks
    )
    noise = jnp.asarray(rng.normal(size=(rows, FRAMES, CHANNELS)), jnp.float32)
    return params, noise, jnp.asarray(rng.normal(size=(rows, STATE)), jnp.float32)


def by_loop(params: dict, noise, condition, steps: int) -> np.ndarray:
    """The definition in float64, one row at a time."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items() if name != "blocks"}
    blocks = {name: np.asarray(leaf, np.float64) for name, leaf in params["blocks"].items()}
    silu = lambda x: x / (1 + np.exp(-x))
    norm = lambda x: (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    half, out = FEATURES // 2, []
    for x, state in zip(np.asarray(noise, np.float64), np.asarray(condition, np.float64),
                        strict=True):  # fmt: skip
        x = x.ravel()
        for step in range(steps):
            angle = 1000 * step / steps * 10_000.0 ** (-np.arange(half) / half)
            time = silu(np.concatenate([np.cos(angle), np.sin(angle)]) @ p["time_in"])
            guide = silu(time @ p["time_out"] + state @ p["condition"])
            h = x @ p["input"]
            for b in range(len(blocks["up"])):
                shift, scale, gate = np.split(
                    guide @ blocks["modulation"][b] + blocks["modulation_bias"][b], 3
                )
                inner = norm(h) * (1 + scale) + shift
                h = h + gate * (silu(inner @ blocks["up"][b]) @ blocks["down"][b])
            shift, scale = np.split(guide @ p["final_modulation"], 2)
            target = (norm(h) * (1 + scale) + shift) @ p["output"]
            x = x + (target - x) / max(1 - step / steps, 0.05) / steps
        out.append(x.reshape(noise.shape[1:]))
    return np.stack(out)


RUNS = {
    "reference": (Implementation.REFERENCE, {}),
    "hoisted": (Implementation.HOISTED, {}),
    "resident": (Implementation.PALLAS_TPU, {"where": flow.Residency.RESIDENT}),
    "streamed": (
        Implementation.PALLAS_TPU,
        {"where": flow.Residency.STREAMED, "blocks": flow.FlowBlocks(inner=16)},
    ),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("width", "blocks", "steps", "dtype"), [
    (16, 2, 3, "float32"), (24, 1, 25, "float32"), (32, 2, 2, "bfloat16"),
])  # fmt: skip
def test_equals_a_loop(run, width, blocks, steps, dtype):
    """25 steps reach the least time left, where the last division is by 0.05, not 0.04."""
    arguments = drawn(width, blocks, dtype)
    implementation, options = RUNS[run]
    with interpreted(implementation):
        sample = functools.partial(
            flow.sample, steps=steps, implementation=implementation, **options
        )
        got = np.asarray(jax.jit(sample)(*arguments))
    atol = 3e-2 if dtype == "bfloat16" else 1e-4
    np.testing.assert_allclose(got, by_loop(*arguments, steps), atol=atol)


def test_weights_are_resident_where_they_fit_and_an_error_names_both_sizes():
    params, noise, condition = drawn(32, 3)
    need = flow_tpu.fast_memory(params, ROWS, resident=True, inner=16)
    fits, short = (flow.FlowBlocks(inner=16, budget=need - less) for less in (0, 1))
    assert flow.residency(params, ROWS, fits) is flow.Residency.RESIDENT
    assert flow.residency(params, ROWS, short) is flow.Residency.STREAMED
    ask = functools.partial(
        flow.sample, params, noise, condition, steps=2,
        implementation=Implementation.PALLAS_TPU, where=flow.Residency.RESIDENT,
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"needs {need} bytes .* {need - 1}"):
        ask(blocks=short)
    weights = 3 * 4 * 32**2 * 4
    assert need > weights + 2 * FRAMES * CHANNELS * 32 * 4
    assert flow.FlowBlocks().budget < min(c.fast_memory for c in CHIPS.values() if c.fast_memory)


def test_no_kernel_but_those_that_exist():
    arguments = drawn(16, 1)
    with pytest.raises(ValueError, match="PALLAS_GPU does not exist for sample"):
        flow.sample(*arguments, steps=2, implementation=Implementation.PALLAS_GPU)
    with pytest.raises(ValueError, match="inner=24 does not divide the 32"):
        flow.sample(
            *arguments, steps=2, implementation=Implementation.PALLAS_TPU,
            where=flow.Residency.STREAMED, blocks=flow.FlowBlocks(inner=24),
        )  # fmt: skip


def test_counts_what_is_written_there():
    sizes = {"rows": 2, "steps": 8, "blocks": 3, "width": 256, "chunk": 1280, "item": 4}
    once = flow.count(**sizes, where=flow.Residency.RESIDENT)
    streamed = flow.count(**sizes, where=flow.Residency.STREAMED)
    assert streamed.bytes - once.bytes == 7 * 3 * 4 * 256 * 256 * 4
    assert once.flops == streamed.flops == 2 * 2 * 8 * (3 * 4 * 256**2 + 2 * 256 * 1280)
    assert once.bytes < 8 * MEBIBYTE
