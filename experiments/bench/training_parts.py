"""The parts of a training step that CPU computes in its own way, against what it would do else.

Question: how long do experts, sliding and global attention and the vision stem take, forward and
backward, at the shapes of `training.py` and of `configs/nano.py`, and which tile sizes are best?
Command: taskset -c 1 python -m experiments.bench.training_parts
Cost: about four minutes, most of it compiling; `--quick` one size of each, writes nothing.
Expectation: at least twice as fast for experts with 2 of 8 chosen and for attention.
Finding: in `training_parts.json`.

Every part is `jax.value_and_grad` of a fixed sum over its output, for all its inputs, one thread.
The ways are timed in turns, in time of the processor (others may be at work); their outputs and
gradients are compared on the way, and a difference above 1e-4 of the largest number ends the run.
"""

import argparse
import functools
import os
import pathlib
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

from configs import nano
from experiments.bench import machine, measure, text_stack
from experiments.bench.machine_limits import gemm_peak
from interaction import configuration
from interaction.kernels import experts_sorted
from interaction.models import attention, attention_tiles, embed, moe
from interaction.models.attention import Whereabouts
from interaction.models.attention_tiles import Bias
from interaction.models.config import AttentionConfig, InteractionConfig, TransformerConfig
from interaction.models.parameters import init_params
from interaction.streams.image import normalise_patches

HERE = pathlib.Path(__file__).parent
ROUNDS = 9
TOLERANCE = 1e-4
EXPERT_ROWS = ((64, 64), (128, 128), (128, 32), (256, 32))
SLIDING_ROWS = (16, 32, 64)
TUBELETS = (32, 64, 128)
# Share of a batch's tubelets that a nano batch of seed 0 holds.
TUBELETS_USED = 0.4
NUMBERS = np.random.default_rng(0)


def nano_model() -> InteractionConfig:
    return configuration.build(InteractionConfig, nano.get_config().model.to_dict())


def shapes() -> dict[str, tuple[TransformerConfig, int, int]]:
    """Configuration, sequences and slots by name."""
    sizes = {size: (text_stack.stack_config(size), 2, 512) for size in text_stack.SIZES}
    return sizes | {"nano": (nano_model().transformer, 8, 336)}


def compiled(function, inputs: tuple, given: tuple):
    """Value and gradients of the sum of ``function(*inputs, *given)`` times fixed numbers."""
    out = jax.eval_shape(function, *inputs, *given)
    numbers = jnp.asarray(np.random.default_rng(7).normal(size=out.shape), out.dtype)
    total = lambda numbers, *inputs: jnp.sum(function(*inputs) * numbers)
    program = jax.jit(jax.value_and_grad(total, argnums=tuple(range(1, len(inputs) + 1))))
    return lambda: program(numbers, *inputs, *given)


def agree(found, wanted) -> float:
    """Greatest difference of any output or gradient as a share of its largest number."""
    worst = 0.0
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        worst = max(worst, float(jnp.abs(one - other).max() / jnp.abs(other).max()))
    if not worst < TOLERANCE:
        raise ValueError(f"the two ways differ by {worst}, above {TOLERANCE}")
    return worst


def compare(ways: dict, inputs: tuple, given: tuple = ()) -> dict:
    """Median milliseconds of every way; the first is what the others are held against."""
    programs = {name: compiled(function, inputs, given) for name, function in ways.items()}
    results = {name: program() for name, program in programs.items()}
    first = next(iter(programs))
    found: dict[str, dict] = {name: {} for name in programs}
    for name in list(programs)[1:]:
        found[name]["difference"] = float(f"{agree(results[name], results[first]):.1e}")
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            started = time.process_time()
            jax.block_until_ready(program())
            times[name].append(time.process_time() - started)
    for name, seconds in times.items():
        median = float(np.median(seconds))
        found[name]["ms"] = round(1000 * median, 2)
        found[name]["times_as_fast"] = round(float(np.median(times[first])) / median, 2)
    return found


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(NUMBERS.normal(size=shape), jnp.float32)


def experts(config: TransformerConfig, B: int, T: int, tried) -> dict:
    """All experts of every slot, or the chosen ones on sorted slots, under an uneven load."""
    M, E, A, D, F = (
        B * T,
        config.experts,
        config.experts_per_slot,
        config.width,
        config.expert_width,
    )
    chosen = jax.lax.top_k(draw(M, E) + 0.2 * draw(1, E), A)[1]

    def every(x, weights, *matrices):
        shares = moe.dense_weights(chosen[None], weights[None], E)
        return moe.gated(*matrices, x[None], shares)[0]

    def alone(rows, x, weights, *matrices):
        return experts_sorted.mix(x, chosen, weights, *matrices, rows)

    ways = {"every expert": every}
    for big, small in tried:
        ways[f"sorted, tiles of {big} and {small}"] = functools.partial(alone, (big, small))
    scaled = (draw(E, D, F) * D**-0.5, draw(E, D, F) * D**-0.5, draw(E, F, D) * F**-0.5)
    return compare(ways, (draw(M, D), jnp.abs(draw(M, A)), *scaled))


def attended(heads: AttentionConfig, config: TransformerConfig, B: int, T: int, tried) -> dict:
    """Attention without its projections, in one piece (sliding: blocks of a window) or in tiles."""
    N, K, H = heads.heads, heads.kv_heads, heads.head_width
    position = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
    where = Whereabouts(position, position)
    shared = {"keys": where, "heads": heads, "scale": 1 / H, "length_scale_BT": None}

    def whole(query, key, value, bias):
        laid = bias.by_distance()
        return attention.attend(query, key, value, laid, queries=where, consecutive=True, **shared)

    def tiles(size, query, key, value, bias):
        attention_tiles.SLIDING_ROWS = size
        return attention_tiles.in_tiles(query, key, value, bias, **shared)

    ways = {"whole": whole}
    if heads.window is None:
        ways["tiles"] = functools.partial(tiles, attention_tiles.SLIDING_ROWS)
    else:
        ways |= {f"tiles of up to {size}": functools.partial(tiles, size) for size in tried}
    bias = Bias(draw(B, T, N, config.bias_width), draw(config.bias_width, heads.bias_extent))
    return compare(ways, (draw(B, T, N, H), draw(B, T, K, H), draw(B, T, K, H), bias))


def stem(B: int, tried) -> dict:
    """All tubelets that a batch has room for, or those that are there."""
    config = nano_model()
    rows, side = nano.get_config().data.patches, config.vision.patch
    params = init_params(jax.random.key(0), config)["vision"]
    rng = np.random.default_rng(0)
    used = jnp.asarray(rng.uniform(size=B * rows) < TUBELETS_USED)
    shape = (B * rows, config.vision.frames, side, side, 3)
    patches = jnp.asarray(rng.integers(0, 256, shape), jnp.uint8)

    def every(params, patches):
        return jnp.where(
            used[:, None], embed.vision_stem(params, normalise_patches(patches), config), 0
        )

    def there(size, params, patches):
        embed.TUBELETS = size
        return embed.used_tubelets(params, patches, used, config)

    ways = {"every tubelet": every}
    ways |= {f"those there, blocks of {size}": functools.partial(there, size) for size in tried}
    return compare(ways, (params,), (patches,))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one tile size, nothing written")
    parser.add_argument("--only", choices=[*shapes()], help="one shape, nothing written")
    args = parser.parse_args()
    tried = lambda sizes: sizes[1:2] if args.quick else sizes
    found: dict = {}
    for name, (config, B, T) in shapes().items():
        if args.only not in (None, name):
            continue
        assert config.local is not None
        assert config.global_ is not None
        found[name] = {
            "experts": experts(config, B, T, tried(EXPERT_ROWS)),
            "sliding attention": attended(config.local, config, B, T, tried(SLIDING_ROWS)),
            "global attention": attended(config.global_, config, B, T, ()),
        }
        if name == "nano":
            found[name]["vision stem"] = stem(B, tried(TUBELETS))
        for part, ways in found[name].items():
            print(name, part, ways, flush=True)
    content = {
        "question": "forward and backward of parts of a training step on one core, two ways each",
        "rounds": ROUNDS,
        "facts": machine.facts(packages=("jax", "jaxlib", "numpy")),
        "gemm_peak_gflops": round(gemm_peak() / 1e9, 1),
        "share_of_tubelets_used": TUBELETS_USED,
        "parts": found,
    }
    if not (args.quick or args.only):
        measure.write(HERE / "training_parts.json", content)


if __name__ == "__main__":
    main()
