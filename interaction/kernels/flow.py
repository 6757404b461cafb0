"""The flow head (AdaLN MLP) and its Euler integration, all steps from noise to mel.

In: noise, the transformer's state and the head's parameters (a plain dict). Out: mel ``x_1``. Three
ways of one computation:

- `REFERENCE`, step by step as the definition has it (`predict` x_1, `velocity`, Euler step); the
  first two are also what training reads.
- the guide of every step depends on the flow time and the state, not on x: so the modulations of
  all steps can be made in one product before the first step (`modulations`). Their matrices,
  ``blocks 3 W^2`` of ``blocks 7 W^2`` numbers, are then read once instead of once per step.
  `HOISTED` does so in XLA: what live steps take wherever the kernel is not.
- `PALLAS_TPU`, one kernel for all steps on these modulations: the remaining weights stay in VMEM
  for all steps where they fit (`Residency.RESIDENT`), else they pass through once per step.

There is no GPU kernel, for a reason: the steps depend on each other, so one kernel would need all
processors of a GPU to wait for each other between layers, which Triton has no means for, and one
processor alone has 1/132 of an H200's bandwidth, and 228 KiB against the 3 MB of the smallest head.
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp

from interaction.kernels.implementation import CHIPS, Count, Implementation, unknown
from interaction.shapes import Array, Float

KNOWN = (Implementation.REFERENCE, Implementation.HOISTED, Implementation.PALLAS_TPU)
LEAST_TIME_LEFT = 0.05
EPSILON = 1e-6


class Residency(enum.Enum):
    """Where the weights of the steps lie in the TPU kernel.

    Attributes:
        RESIDENT: in VMEM, read once for all steps.
        STREAMED: in HBM, read once per step.
    """

    RESIDENT = "resident"
    STREAMED = "streamed"


@dataclasses.dataclass(frozen=True)
class FlowBlocks:
    """Block sizes of the TPU kernel.

    Attributes:
        inner: columns of the blocks' 2 W inner numbers per grid step where streamed.
        budget: bytes of VMEM that a head may ask for.
    """

    inner: int = 512
    budget: int = min(chip.fast_memory for chip in CHIPS.values() if chip.fast_memory) * 3 // 4

    def __post_init__(self):
        for name in ("inner", "budget"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def residency(params: dict, rows: int, blocks: FlowBlocks = FlowBlocks()) -> Residency:
    """Resident where the head's weights and `rows` rows of work fit into the budget."""
    from interaction.kernels import flow_tpu  # here: Pallas is slow to import

    need = flow_tpu.fast_memory(params, rows, resident=True, inner=blocks.inner)
    return Residency.RESIDENT if need <= blocks.budget else Residency.STREAMED


def sample(
    params: dict,
    noise: Float[Array, "n R Z"],
    condition: Float[Array, "n D"],
    *,
    steps: int,
    implementation: Implementation,
    where: Residency | None = None,
    blocks: FlowBlocks = FlowBlocks(),
) -> Float[Array, "n R Z"]:
    """Euler integration from noise to mel in `steps` equal steps.

    Args:
        params: the `flow` tree of the model's parameters.
        noise: x at t = 0, one chunk per row.
        condition: the transformer's state.
        steps: Euler steps.
        implementation: who computes.
        where: TPU: where weights lie; None: `residency`.
        blocks: TPU: block sizes and the budget.

    Returns:
        x at t = 1, in the dtype of `noise`. `HOISTED` and the TPU kernel multiply in the dtype of
        the weights with float32 sums, and keep x, h and norms in float32.

    Raises:
        ValueError: asked to be resident beyond the budget; steps below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    if implementation is Implementation.REFERENCE:
        return reference(params, noise, condition, steps)
    if implementation is Implementation.HOISTED:
        return hoisted(params, noise, condition, steps)
    if implementation is not Implementation.PALLAS_TPU:
        raise unknown("sample", implementation, KNOWN)
    from interaction.kernels import flow_tpu  # here: Pallas is slow to import

    rows = noise.shape[0]
    need = flow_tpu.fast_memory(params, rows, resident=True, inner=blocks.inner)
    if where is Residency.RESIDENT and need > blocks.budget:
        raise ValueError(
            f"where=RESIDENT needs {need} bytes of VMEM for {rows} rows and blocks.budget is "
            f"{blocks.budget}: use STREAMED"
        )
    where = residency(params, rows, blocks) if where is None else where
    shifts, final = modulations(params, condition, steps)
    chunk = noise.reshape(rows, -1)
    out = flow_tpu.integrate(
        params,
        chunk,
        shifts,
        final,
        resident=where is Residency.RESIDENT,
        inner=blocks.inner,
        left=[max(1.0 - step / steps, LEAST_TIME_LEFT) for step in range(steps)],
        cost=count_of(params, rows, steps, where),
    )
    return out.reshape(noise.shape)


def _layer_norm(x: Array) -> Array:
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + EPSILON)).astype(x.dtype)


def time_embedding(params: dict, t: Float[Array, "s"]) -> Float[Array, "s W"]:
    """Sine and cosine features of the flow time through two matrices."""
    half = params["time_in"].shape[0] // 2
    frequency = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half) / half)
    angle = 1000.0 * t.astype(jnp.float32)[:, None] * frequency[None]
    features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return jax.nn.silu(features @ params["time_in"]) @ params["time_out"]


def predict(
    params: dict,
    x_t: Float[Array, "n R Z"],
    t: Float[Array, "n"],
    condition: Float[Array, "n D"],
) -> Float[Array, "n R Z"]:
    """Expected mel x_1 given the point x_t at time t and the transformer's state."""
    guide = jax.nn.silu(time_embedding(params, t) + condition @ params["condition"])

    def block(h, p):
        shift, scale, gate = jnp.split(
            guide @ p["modulation"] + p["modulation_bias"][None], 3, axis=-1
        )
        inner = _layer_norm(h) * (1 + scale) + shift
        return h + gate * (jax.nn.silu(inner @ p["up"]) @ p["down"]), None

    blocks = params["blocks"]
    h = x_t.reshape(x_t.shape[0], -1) @ params["input"]
    h, _ = jax.lax.scan(block, h, blocks, unroll=blocks["up"].shape[0])
    shift, scale = jnp.split(guide @ params["final_modulation"], 2, axis=-1)
    out = (_layer_norm(h) * (1 + scale) + shift) @ params["output"]
    return out.reshape(x_t.shape)


def velocity(params: dict, x_t: Array, t: Array, condition: Array) -> Float[Array, "n R Z"]:
    """Velocity at (x_t, t) given the transformer's state: ``(x_1 - x_t) / (1 - t)``.

    The network predicts x_1. A chunk has R Z = 1,280 numbers, several times the inner width: a
    network that put out the velocity itself would have to carry all of x_0 through that width
    and could not; what it knows of x_1 fits.
    """
    left = jnp.maximum(1.0 - t, LEAST_TIME_LEFT)[:, None, None]
    return (predict(params, x_t, t, condition) - x_t) / left


def modulations(params: dict, condition: Array, steps: int) -> tuple[Array, Array]:
    """Shift, scale and gate of every block at every step, float32 ``[s, blocks, n, 3 W]``, and the
    last norm's shift and scale ``[s, n, 2 W]``: one product for all steps."""
    time = time_embedding(params, jnp.arange(steps, dtype=jnp.float32) / steps)
    guide = jax.nn.silu(time[:, None] + (condition @ params["condition"])[None])
    guide = guide.astype(params["blocks"]["modulation"].dtype)
    each = jnp.einsum(
        "snW,bWc->sbnc", guide, params["blocks"]["modulation"], preferred_element_type=jnp.float32
    )
    bias = params["blocks"]["modulation_bias"].astype(jnp.float32)
    final = jnp.einsum(
        "snW,Wc->snc", guide, params["final_modulation"], preferred_element_type=jnp.float32
    )
    return each + bias[None, :, None], final


def reference(params: dict, noise: Array, condition: Array, steps: int) -> Array:
    """The definition, step by step."""

    def step(index, x):
        t = jnp.full((x.shape[0],), index / steps, jnp.float32)
        return x + velocity(params, x, t, condition) / steps

    return jax.lax.fori_loop(0, steps, step, noise).astype(noise.dtype)


def hoisted(params: dict, noise: Array, condition: Array, steps: int) -> Array:
    """The steps on `modulations` that were made before the first."""
    shifts, final = modulations(params, condition, steps)
    blocks = params["blocks"]

    def product(h, matrix):
        return jnp.matmul(h.astype(matrix.dtype), matrix, preferred_element_type=jnp.float32)

    def step(index, x):
        h = product(x, params["input"])
        for number in range(blocks["up"].shape[0]):
            shift, scale, gate = jnp.split(shifts[index, number], 3, axis=-1)
            inner = _layer_norm(h) * (1 + scale) + shift
            inner = jax.nn.silu(product(inner, blocks["up"][number]))
            h = h + gate * product(inner, blocks["down"][number])
        shift, scale = jnp.split(final[index], 2, axis=-1)
        found = product(_layer_norm(h) * (1 + scale) + shift, params["output"])
        left = jnp.maximum(1.0 - index / steps, LEAST_TIME_LEFT)
        return x + (found - x) / left / steps

    x = noise.reshape(noise.shape[0], -1).astype(jnp.float32)
    return jax.lax.fori_loop(0, steps, step, x).reshape(noise.shape).astype(noise.dtype)


def count(
    *, rows: int, steps: int, blocks: int, width: int, chunk: int, item: int, where: Residency
) -> Count:
    """Bytes and operations of the kernel (the modulations are made before it).

    Weights are ``blocks 4 W^2 + 2 W R Z`` numbers; resident they are read once, streamed the
    blocks' are read once per step (input and output matrices are held either way). Modulations,
    float32, ``steps n (3 blocks + 2) W``; x in and out. Two operations per weight, row and step.

    Args:
        rows, steps, blocks, width, chunk: n, steps, blocks, W, R Z.
        item: bytes of a weight.
        where: where weights lie.
    """
    inside, ends = blocks * 4 * width * width, 2 * width * chunk
    times = 1 if where is Residency.RESIDENT else steps
    modulation = steps * rows * (3 * blocks + 2) * width
    return Count(
        bytes=(inside * times + ends) * item + 4 * modulation + 8 * rows * chunk,
        flops=2 * rows * steps * (inside + ends),
        transcendentals=rows * steps * blocks * 2 * width,
    )


def count_of(params: dict, rows: int, steps: int, where: Residency) -> Count:
    """`count` of a parameter tree."""
    chunk, width = params["input"].shape
    up = params["blocks"]["up"]
    return count(
        rows=rows,
        steps=steps,
        blocks=up.shape[0],
        width=width,
        chunk=chunk,
        item=up.dtype.itemsize,
        where=where,
    )
