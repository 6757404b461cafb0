"""One small model on many meshes: what it gives on one device, and what on several.

In: a `MeshConfig`. Out: forward, gradient and a live step, computed on that mesh, as numpy. Sizes
are such that every axis of 2, 4 and 8 devices divides something: 8 experts, 8 lanes, 8 heads.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from configs import tml_interaction_small
from interaction import configuration, sharding
from interaction.models import interaction_model, transformer
from interaction.models.config import AttentionConfig, InteractionConfig, Recompute
from interaction.models.parameters import abstract_params, param_axes
from interaction.session.state import init_state, state_specs
from interaction.session.step import microturn_step
from interaction.shapes import Array
from interaction.sharding import MeshConfig, Purpose
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.train import losses
from interaction.types import AudioChunk, Batch, Control, MicroTurn
from tests.models_for_tests import DENSE, GLOBAL, LOCAL, MOE, padded, random_params, tiny

LANES = 8
WEIGHTS = losses.LossConfig()
GOLDEN = pathlib.Path(__file__).parent / "testdata" / "shardings"


@functools.cache
def model() -> InteractionConfig:
    """Two layers; kv heads that 2 divides, heads that 8 divides, experts that 8 divides."""
    return tiny(
        width=32,
        attention_kinds=(LOCAL, GLOBAL),
        mlp_kinds=(DENSE, MOE),
        local=AttentionConfig(heads=8, kv_heads=4, head_width=6, window=13, bias_extent=9),
        global_=AttentionConfig(heads=8, kv_heads=2, head_width=10, window=None, bias_extent=19),
        dense_width=48,
        expert_width=24,
        experts=8,
        experts_per_slot=3,
        vocabulary=288,
        global_slots=64,
    )


@functools.cache
def params() -> dict:
    return random_params(model())


def turns(lane: int, count: int = 3) -> list[MicroTurn]:
    """Micro-turns of one conversation: sound, a word now and then, its own speech."""
    config, rng = model(), np.random.default_rng(lane)
    first = config.ordinary_tokens

    def turn(now: int) -> MicroTurn:
        speaks = (now + lane) % 2 == 1
        closer = Control.SPEAK if speaks else Control.PASS
        mel = rng.normal(size=(config.grid.mel_frames, config.mel.bands)).astype(np.float32)
        said = (first + int(Control.WRITE), int(rng.integers(0, first))) if lane % 3 == 0 else ()
        return MicroTurn(
            now,
            audio=(AudioChunk(rng.integers(0, 16, (4, 80)).astype(np.uint8)),),
            text_out=(*said, first + int(closer)),
            speech=mel if speaks else None,
        )

    return [turn(now) for now in range(count)]


@functools.cache
def batch() -> Batch:
    """Eight conversations of unlike lengths; T is a multiple of 8."""
    made = padded([turns(lane, 2 + lane % 2) for lane in range(LANES)], model())
    short = -made.slots.stream.shape[1] % 8

    def wider(x):
        return jnp.pad(x, ((0, 0), (0, short)))

    targets = dataclasses.replace(
        made.targets,
        token=jnp.pad(made.targets.token, ((0, 0), (0, short)), constant_values=-1),
        token_weight=wider(made.targets.token_weight),
    )
    return dataclasses.replace(made, slots=jax.tree.map(wider, made.slots), targets=targets)


def sharding_table(config: InteractionConfig, training: MeshConfig, serving: MeshConfig) -> str:
    """Where every parameter and every leaf of a session's state lies, as a table in Markdown."""
    shapes = abstract_params(config)

    def lines(tree, *specs):
        is_spec = lambda x: isinstance(x, PartitionSpec)
        columns = [jax.tree.leaves(s, is_leaf=is_spec) for s in specs]
        for (path, leaf), *found in zip(
            jax.tree_util.tree_leaves_with_path(tree), *columns, strict=True
        ):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            cells = [f"`{tuple(spec)}`" if tuple(spec) else "" for spec in found]
            yield f"| {name} | {leaf.shape} | {' | '.join(cells)} |"

    def of_parameters(mesh, purpose):
        return sharding.parameter_specs(shapes, param_axes(config), mesh, purpose)

    lanes = serving.batch_shards
    state = jax.eval_shape(functools.partial(init_state, config, lanes))
    shown = lambda mesh: ", ".join(f"{n} {s}" for n, s in sharding.sizes(mesh).items() if s > 1)
    return "\n".join([
        f"| parameter | shape | training: {shown(training)} | serving: {shown(serving)} |",
        "|---|---|---|---|",
        *lines(
            shapes,
            of_parameters(training, Purpose.TRAINING),
            of_parameters(serving, Purpose.SERVING),
        ),
        "",
        f"| state of {lanes} sessions | shape | serving: {shown(serving)} |",
        "|---|---|---|",
        *lines(state, state_specs(config, lanes, serving)),
        "",
    ])  # fmt: skip


def golden_tables() -> dict[str, str]:
    """The committed tables by their file's name; ``python -m tests.mesh_for_tests`` writes them."""
    announced = configuration.build(
        InteractionConfig, tml_interaction_small.get_config().model.to_dict()
    )
    return {
        "small.md": sharding_table(
            model(),
            MeshConfig(data=2, fsdp=2, expert=2, tensor=2),
            MeshConfig(data=2, expert=2, tensor=2, sequence=2),
        ),
        "tml_interaction_small.md": sharding_table(
            announced,
            MeshConfig(data=2, expert=64, tensor=4),
            MeshConfig(expert=8, tensor=8),
        ),
    }


def meshes(devices: int) -> list[MeshConfig]:
    """Every mesh of so many devices."""
    sizes = [n for n in range(1, devices + 1) if devices % n == 0]
    found = [MeshConfig(*shape) for shape in itertools.product(sizes, repeat=5)]
    return [config for config in found if config.devices == devices]


def laid_params(tree: dict, config: MeshConfig, mesh, purpose: Purpose) -> dict:
    specs = sharding.parameter_specs(tree, param_axes(model()), config, purpose)
    return jax.device_put(tree, sharding.shardings(mesh, specs))


def gradient_in_parts(config: MeshConfig) -> dict[str, Any]:
    """`gradient_of` as a step that has to save memory makes it: layers, queries, logits and draws
    of the flow in parts, each computed again in the backward pass."""
    stack = dataclasses.replace(model().transformer, recompute=Recompute.LAYERS, query_slots=5)
    saving = dataclasses.replace(model(), transformer=stack)
    return gradient_of(config, of=saving, weights=losses.LossConfig(text_slots=7))


def gradient_of(
    config: MeshConfig,
    *,
    of: InteractionConfig | None = None,
    weights: losses.LossConfig = WEIGHTS,
    capacity_factor: float | None = None,
) -> dict[str, Any]:
    """Loss, logits of valid slots, load and gradients of the training loss."""
    mesh, of = sharding.make_mesh(config), of or model()

    @jax.jit
    def both(params, batch):
        def loss(params):
            total, parts = losses.total(
                params, batch, jax.random.key(7), of, weights,
                capacity_factor=capacity_factor,
            )  # fmt: skip
            return total, parts

        (_, parts), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        out = interaction_model.forward(params, batch, of, capacity_factor=capacity_factor)
        logits = jnp.where(batch.slots.valid[..., None], out.logits, 0.0)
        return {"parts": parts, "gradient": gradient, "logits": logits}

    laid = laid_params(params(), config, mesh, Purpose.TRAINING)
    with jax.set_mesh(mesh):
        made = both(laid, jax.device_put(batch(), sharding.by_batch(mesh)))
    return fetched(made)


def stack_states() -> tuple[Array, Array]:
    """States of 8 rows of 16 slots, and which are there: rows of unlike lengths, one empty."""
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(LANES, 16, model().transformer.width)), jnp.float32)
    length = jnp.asarray([16, 9, 0, 12, 16, 5, 7, 1])
    return x, jnp.arange(16)[None] < length[:, None]


def stack_program(config: MeshConfig, *, capacity_factor: float | None = None) -> tuple:
    """The stack's loss and what it takes, laid out for a mesh."""
    mesh, stack = sharding.make_mesh(config), model().transformer
    x, valid = stack_states()
    weight = jnp.asarray(np.random.default_rng(4).normal(size=x.shape), jnp.float32)
    position = jnp.broadcast_to(jnp.arange(16, dtype=jnp.int32)[None], valid.shape)

    def loss(params, x, valid, position, weight):
        hidden, _, load = transformer.run(
            params["transformer"], x, stack, position_BT=position, valid_BT=valid,
            consecutive=True, capacity_factor=capacity_factor,
        )  # fmt: skip
        hidden = jnp.where(valid[..., None], hidden, 0.0)
        return jnp.sum(hidden * weight), (hidden, load)

    laid = laid_params({"transformer": params()["transformer"]}, config, mesh, Purpose.TRAINING)
    rows = jax.device_put((x, valid, position, weight), sharding.by_batch(mesh))
    return loss, (laid, *rows)


def stack_gradient(config: MeshConfig, *, capacity_factor: float | None = None) -> dict:
    """Hidden states of the stack alone, its load, and gradients with respect to all it takes."""
    loss, arguments = stack_program(config, capacity_factor=capacity_factor)
    with jax.set_mesh(sharding.make_mesh(config)):
        both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, (hidden, load)), gradient = both(*arguments)
    return fetched({"hidden": hidden, "load": load, "gradient": gradient})


def live_program(config: MeshConfig) -> tuple:
    """A live call of the stack and what it takes, laid out for a mesh."""
    mesh, stack = sharding.make_mesh(config), model().transformer
    x, valid = stack_states()
    specs = state_specs(model(), LANES, config).cache
    cache = jax.device_put(init_state(model(), LANES).cache, sharding.shardings(mesh, specs))
    cache = {name: leaf for name, leaf in cache.items() if name != "lost_text"}

    def call(params, cache, x, valid):
        position = cache["count"][:, None] + jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1
        hidden, cache, _ = transformer.run(
            params["transformer"], x, stack, position_BT=position, valid_BT=valid, cache=cache
        )
        return jnp.where(valid[..., None], hidden, 0.0), cache

    laid = laid_params({"transformer": params()["transformer"]}, config, mesh, Purpose.SERVING)
    return call, (laid, cache, *jax.device_put((x, valid), sharding.by_batch(mesh)))


def stack_calls(config: MeshConfig) -> dict:
    """Two live calls of the stack alone against its cache, lanes of unlike lengths."""
    call, (laid, cache, *rows) = live_program(config)
    call = jax.jit(call)
    with jax.set_mesh(sharding.make_mesh(config)):
        first, cache = call(laid, cache, *rows)
        second, cache = call(laid, cache, *rows)
    return fetched({"first": first, "second": second, "cache": cache})


def microturns(config: MeshConfig) -> dict:
    """Two whole micro-turns of eight sessions, one lane of them empty; the model's own outputs."""
    mesh = sharding.make_mesh(config)
    rng = np.random.default_rng(8)
    state = init_state(model(), LANES, seed=2)
    state = jax.device_put(state, sharding.shardings(mesh, state_specs(model(), LANES, config)))
    laid = laid_params(params(), config, mesh, Purpose.SERVING)
    step = jax.jit(functools.partial(microturn_step, config=model()))
    outputs = []
    for now in range(2):
        sound = rng.normal(size=(LANES, model().grid.samples)).astype(np.float32) * 0.1
        lanes = [LaneInput(now, audio=((now, sound[lane]),)) for lane in range(LANES)]
        inputs = weave_inputs([*lanes[:3], None, *lanes[4:]], model().weave, slots=8, patches=0)
        with jax.set_mesh(mesh):
            state, made = step(laid, state, jax.device_put(inputs, sharding.by_batch(mesh)))
        outputs.append(made)
    state = dataclasses.replace(state, key=jax.random.key_data(state.key))
    return fetched({"outputs": outputs, "state": state})


def forward_alone(config: MeshConfig) -> tuple:
    """Hidden states alone: no loss, no load that would be summed over devices."""
    loss, arguments = stack_program(config)
    return lambda *arguments: loss(*arguments)[1][0], arguments


def compiled_text(function, config: MeshConfig, *arguments) -> str:
    """HLO of `function` compiled for a mesh."""
    with jax.set_mesh(sharding.make_mesh(config)):
        return jax.jit(function).lower(*arguments).compile().as_text()


def collectives(text: str) -> list[tuple[str, str]]:
    """Kind and result shape of every collective in HLO that joins two devices or more."""
    kinds = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|ragged-all-to-all"
    found = re.findall(rf"= (\S+|\(.*?\)) ({kinds})(?:-start)?\((.*)", text)
    alone = re.compile(r"replica_groups=(\{\{\d+\}(,\{\d+\})*\}|\[\d+,1\])")
    return [(kind, shape) for shape, kind, rest in found if not alone.search(rest)]


def fetched(tree):
    """The same as numpy."""
    return jax.tree.map(np.asarray, tree)


def worst(a, b) -> float:
    """Greatest difference of two trees, each leaf's against its greatest value.

    A layer's gradient with respect to `scale` is one sum over every slot and width whose terms
    nearly cancel: two programs of one device differ in it by 2e-5, in all else by 3e-6. A tenth of
    it counts.
    """
    found = 0.0
    leaves, others = jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)
    for (path, x), y in zip(leaves, others, strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        difference = float(np.max(np.abs(x - y), initial=0.0) / (np.max(np.abs(x)) + 1e-9))
        cancels = jax.tree_util.keystr(path[-1:], simple=True) == "scale"
        found = max(found, difference / 10 if cancels else difference)
    return found


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, table in golden_tables().items():
        (GOLDEN / name).write_text(table)
