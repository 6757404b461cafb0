"""Our forward pass against the reference implementation's committed values.

In: goldens of `experiments/parity` (made with `transformers`, read here without torch). Out: the
largest absolute difference of any logit at any valid position, per case, held under 1e-4 in
float32. ``UPDATE_GOLDEN=1`` records the differences in `testdata/parity/errors.json`. Deliberately
broken variants must differ visibly, so a pass means something.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity.weights import checksum, draw
from interaction.checkpoints.huggingface import (
    ReleasedConfig,
    import_checkpoint,
    load_params,
    read_config,
)
from interaction.checkpoints.safetensors_file import TensorInfo, Writer
from interaction.models import cache as cache_of
from interaction.models import embed, moe, transformer

pytestmark = pytest.mark.parity
TESTDATA = Path(__file__).parent / "testdata" / "parity"
TOLERANCE = 1e-4
VISIBLE = 1e-2
STORED = (
    "inkling_text",
    "inkling_audio",
    "inkling_vision",
    "inkling_mixed",
    "inkling_text_only",
    "llama_tied",
    "llama_untied",
)
DRAWN = "inkling_patch_40"
CASES = (*STORED, DRAWN)


@dataclasses.dataclass(frozen=True)
class Golden:
    """An imported checkpoint and what the reference gave for it."""

    released: ReleasedConfig
    params: dict
    arrays: dict


def draw_checkpoint(source: Path, folder: Path) -> None:
    """Write the checkpoint whose weights are not stored, from its seed."""
    recipe = json.loads((source / "shapes.json").read_text())
    tensors = {
        name: draw(name, tuple(shape), recipe["seed"], recipe["exact_in"])
        for name, shape in recipe["shapes"].items()
    }
    assert checksum(tensors) == recipe["checksum"], "numpy draws other numbers from this seed"
    layout = {n: TensorInfo(np.dtype(np.float16), v.shape) for n, v in tensors.items()}
    folder.mkdir()
    with Writer(folder / "model.safetensors", layout) as writer:
        for name, values in tensors.items():
            writer.write(name, values.astype(np.float16))
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Case name -> `Golden`; each is imported once."""

    @functools.cache
    def load(case: str) -> Golden:
        source, folder = TESTDATA / case, tmp_path_factory.mktemp(case)
        if case == DRAWN:
            draw_checkpoint(source, folder / "released")
            source = folder / "released"
        import_checkpoint(source, folder / "native")
        with np.load(TESTDATA / case / "golden.npz") as file:
            arrays = {name: file[name] for name in file.files}
        params = load_params(folder / "native", dtype=np.float32)
        return Golden(read_config(folder / "native"), params, arrays)

    return load


def model(params: dict, arrays: dict, config, placeholders: dict, output: str) -> dict:
    """Everything that is compared: logits, and the states of each stem that has input.

    With `output` "states", the merged slot states go before the decoder instead of its logits.
    """
    stack = getattr(config, "transformer", config)
    tokens = arrays["tokens"]
    out = {}
    x = transformer.embed_tokens(params["transformer"], tokens, stack)
    if "audio" in arrays:
        out["audio_embeddings"] = embed.audio_stem(params["audio"], arrays["audio"], config)
    if "pixels" in arrays:
        out["patch_embeddings"] = embed.vision_stem(params["vision"], arrays["pixels"], config)
    for kind, (rows, columns) in placeholders.items():
        x = x.at[rows, columns].set(out[kind])
    if output == "states":
        return {"states": x}
    out["logits"] = transformer.forward_tokens(
        params["transformer"], tokens, stack, valid_BT=arrays["valid"], embeddings_BTD=x
    )
    return out


@functools.cache
def _compiled(config, output):
    return jax.jit(functools.partial(model, config=config, output=output))


def forward(
    case: Golden,
    params: dict | None = None,
    config=None,
    fresh: bool = False,
    output: str = "logits",
) -> dict:
    """Our outputs under the names of the golden arrays (`fresh`: not from the compiled cache)."""
    config = case.released.config if config is None else config
    tokens = case.arrays["tokens"].astype(np.int32)
    arrays = {"tokens": tokens, "valid": case.arrays["valid"]}
    placeholders = {}
    if "audio" in case.arrays:
        arrays["audio"] = case.arrays["audio"][case.arrays["audio_valid"]].astype(np.int32)
        placeholders["audio_embeddings"] = np.nonzero(tokens == case.released.audio_token)
    if "pixels" in case.arrays:
        arrays["pixels"] = case.arrays["pixels"]
        placeholders["patch_embeddings"] = np.nonzero(tokens == case.released.image_token)
    run = _compiled.__wrapped__(config, output) if fresh else _compiled(config, output)
    out = run(case.params if params is None else params, arrays, placeholders=placeholders)
    return {name: np.asarray(values) for name, values in out.items()}


def errors(case: Golden, out: dict) -> dict[str, float]:
    """Largest absolute difference of each output, of logits at valid positions."""
    found = {}
    for name, values in out.items():
        want = case.arrays[name]
        assert values.shape == want.shape and values.dtype == np.float32, name
        keep = case.arrays["valid"] if name == "logits" else ...
        found[name] = float(np.abs(values - want)[keep].max())
    return found


def _record(case: str, values: dict) -> None:
    path = TESTDATA / "errors.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        known[case] = {name: float(f"{value:.2e}") for name, value in values.items()}
        path.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")
    assert known.get(case, {}).keys() == values.keys(), f"no record of {case} in {path.name}"
    assert max(known[case].values()) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_logits_and_stems_equal_the_reference(golden, name):
    case = golden(name)
    found = errors(case, forward(case))
    print(name, {kind: f"{value:.1e}" for kind, value in found.items()})
    assert max(found.values()) <= TOLERANCE, found
    _record(name, found)


@pytest.mark.parametrize("name", ["inkling_vision", "llama_tied"])
@pytest.mark.parametrize("piece", [1, 7])
def test_piecewise_through_the_cache_equals_the_reference(golden, name, piece):
    """Fed a few slots at a time, as live, with a ring no longer than the window needs."""
    case = golden(name)
    config, stack = case.released.transformer, case.params["transformer"]
    tokens, valid = case.arrays["tokens"].astype(np.int32), case.arrays["valid"]
    states = forward(case, output="states")["states"]
    B, T = tokens.shape
    window = config.local.window if config.local else 1
    cache = cache_of.init_cache(
        config, B, local_slots=window + piece, global_slots=T + piece, dtype=np.float32
    )

    @jax.jit
    def call(x, position, there, cache):
        hidden, cache, _ = transformer.run(
            stack, x, config, position_BT=position, valid_BT=there, cache=cache
        )
        return transformer.logits(stack, hidden, config), cache

    found = np.zeros_like(case.arrays["logits"])
    for start in range(0, T, piece):
        stop = min(start + piece, T)
        pad = ((0, 0), (0, piece - (stop - start)))
        x = np.pad(states[:, start:stop], (*pad, (0, 0)))
        there = np.pad(valid[:, start:stop], pad)
        position = np.broadcast_to(np.arange(start, start + piece, dtype=np.int32), (B, piece))
        scores, cache = call(x, position, there, cache)
        found[:, start:stop] = np.asarray(scores)[:, : stop - start]
    assert errors(case, {"logits": found})["logits"] <= TOLERANCE


# ---------------------------------------------------------------------------- broken variants


def assert_noticed(case: Golden, **variant) -> None:
    """The variant's logits are visibly off, and the honest ones are not."""
    assert errors(case, _honest(case))["logits"] <= TOLERANCE
    assert errors(case, forward(case, **variant))["logits"] > VISIBLE


_HONEST: dict[int, dict] = {}


def _honest(case: Golden) -> dict:
    if id(case) not in _HONEST:
        _HONEST[id(case)] = forward(case)
    return _HONEST[id(case)]


def _edited(params: dict, family: str, **leaves) -> dict:
    """Parameters with leaves of one family of the decoder replaced by functions of the family."""
    stack = params["transformer"][family]
    changed = {name: function(stack) for name, function in leaves.items()}
    decoder = {**params["transformer"], family: {**stack, **changed}}
    return {**params, "transformer": decoder}


def _halves(which: int):
    """Gate (0) or up (1) as if rows were stored one half after the other."""

    def cut(stack: dict) -> np.ndarray:
        gate, up = stack["gate"], stack["up"]
        stored = np.stack([gate, up], axis=-1).reshape(*gate.shape[:-1], -1)
        return np.ascontiguousarray(np.split(stored, 2, axis=-1)[which])

    return cut


def _bias_everywhere(stack: dict) -> np.ndarray:
    return np.zeros_like(stack["bias"])


def _unrotated(name: str):
    """Head dimensions re-ordered as if rotary paired neighbours."""

    def permute(stack: dict) -> np.ndarray:
        width = stack[name].shape[-1]
        order = np.arange(width).reshape(2, width // 2).T.reshape(-1)
        return np.ascontiguousarray(stack[name][..., order])

    return permute


PARAMETER_FAULTS = {
    "gate and up exchanged (dense)": (
        "inkling_text",
        "dense",
        {"gate": lambda s: s["up"], "up": lambda s: s["gate"]},
    ),
    "rows taken as halves (dense)": (
        "inkling_text",
        "dense",
        {"gate": _halves(0), "up": _halves(1)},
    ),
    "rows taken as halves (experts)": (
        "inkling_text",
        "moe",
        {"gate": _halves(0), "up": _halves(1)},
    ),
    "router bias dropped": ("inkling_text", "moe", {"bias": _bias_everywhere}),
    "router scale dropped": ("inkling_text", "moe", {"scale": lambda s: np.ones_like(s["scale"])}),
    "dense scale dropped": (
        "inkling_text",
        "dense",
        {"scale": lambda s: np.ones_like(s["scale"])},
    ),
    "shared experts exchanged": (
        "inkling_text",
        "moe",
        {"shared_down": lambda s: np.ascontiguousarray(s["shared_down"][:, ::-1])},
    ),
    "taps reversed": (
        "inkling_text",
        "block",
        {"mlp_conv": lambda s: np.ascontiguousarray(s["mlp_conv"][..., ::-1])},
    ),
    "key norm dropped": (
        "inkling_text",
        "attention_local",
        {"key_norm": lambda s: np.ones_like(s["key_norm"])},
    ),
    "layers of a kind in another order": (
        "inkling_text",
        "attention_local",
        {"output": lambda s: np.ascontiguousarray(s["output"][::-1])},
    ),
    "rotary pairs neighbours": (
        "llama_untied",
        "attention_global",
        {"query": _unrotated("query"), "key": _unrotated("key")},
    ),
}


@pytest.mark.parametrize("fault", PARAMETER_FAULTS)
def test_wrong_weights_are_noticed(golden, fault):
    name, family, leaves = PARAMETER_FAULTS[fault]
    case = golden(name)
    assert_noticed(case, params=_edited(case.params, family, **leaves))


def _head(config, kind: str, **changes):
    heads = dataclasses.replace(getattr(config, kind), **changes)
    return dataclasses.replace(config, **{kind: heads})


CONFIG_FAULTS = {
    "no length scaling": lambda c: dataclasses.replace(c, scaling_floor=None),
    "window too long by one": lambda c: _head(c, "local", window=c.local.window + 1),
    "one expert fewer": lambda c: dataclasses.replace(c, experts_per_slot=c.experts_per_slot - 1),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_wrong_configuration_is_noticed(golden, fault):
    case = golden("inkling_vision")
    changed = CONFIG_FAULTS[fault](case.released.transformer)
    assert_noticed(case, config=dataclasses.replace(case.released.config, transformer=changed))


def test_router_bias_in_the_weights_is_noticed(golden, monkeypatch):
    """The bias chooses experts; a router that also weighs with it must not pass."""
    case = golden("inkling_vision")
    honest = moe.route

    def leaking(params, x, config):
        chosen, weights, shared = honest(params, x, config)
        scale = jax.nn.sigmoid(x.astype(jnp.float32) @ params["router"])[..., : config.experts]
        pull = 1 + params["bias"][None, None] / scale
        return chosen, weights * jnp.take_along_axis(pull, chosen, axis=-1), shared

    monkeypatch.setattr(moe, "route", leaking)
    assert_noticed(case, fresh=True)


def test_padding_does_not_reach_valid_slots(golden):
    """Other ids in the padding change nothing at valid positions."""
    case = golden("inkling_text")
    tokens = case.arrays["tokens"].copy()
    tokens[~case.arrays["valid"]] = 31
    other = dataclasses.replace(case, arrays={**case.arrays, "tokens": tokens})
    assert errors(case, forward(other))["logits"] <= TOLERANCE
