"""The design page, the README, the pictures and the notebook say what the code does.

In: the files of `docs/`, `notebooks/` and the README. Out: nothing; a page that names a file which
is not there, a number that the code has changed, or a part as missing that has come, fails.
"""

import ast
import importlib.util
import inspect
import json
import pathlib
import re
import warnings
import xml.etree.ElementTree

import jax
import numpy as np
import pytest

from configs import inkling_small, nano, tml_interaction_small
from interaction import configuration, microturn
from interaction.data.config import DataConfig
from interaction.microturn import Grid
from interaction.models import declare
from interaction.models.config import (
    AttentionKind,
    FlowConfig,
    InteractionConfig,
    MlpKind,
    TransformerConfig,
)
from interaction.models.parameters import abstract_params, transformer_specs
from interaction.models.vocoder import VocoderConfig
from interaction.streams import audio, image
from interaction.streams.mel import MelConfig
from interaction.streams.weave import weave
from interaction.train.losses import LossConfig
from interaction.types import CHANNELS, CLOSERS, TEXT_SOURCES, AudioChunk, Control, MicroTurn

ROOT = pathlib.Path(__file__).parents[1]
DESIGN = (ROOT / "docs" / "design.md").read_text()
EVALUATION = (ROOT / "docs" / "evaluation.md").read_text()
README = (ROOT / "README.md").read_text()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FOLDERS = "interaction|configs|docs|notebooks|tests|experiments|checkpoints"


# ---------------------------------------------------------------- names of files


def named_files(text: str) -> set[str]:
    """Paths below a folder of the repository, and targets of relative links from `docs/`."""
    names = re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w./-]*)", text)
    return {name.rstrip(".") for name in names}


@pytest.mark.parametrize(
    ("page", "text"),
    [("docs/design.md", DESIGN), ("docs/evaluation.md", EVALUATION), ("README.md", README)],
)
def test_every_named_file_is_there(page, text):
    names = named_files(text)
    assert len(names) > 5
    missing = sorted(name for name in names if not (ROOT / name).exists())
    assert not missing, f"{page} names what is not there: {missing}"
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert not [link for link in links if not (folder / link).exists()]


def test_a_missing_file_would_be_noticed():
    text = "see `interaction/models/gone.py`, configs/nano.py. And shared/interaction/x"
    assert named_files(text) == {"interaction/models/gone.py", "configs/nano.py"}


def test_every_section_of_the_design_names_its_files():
    sections = re.split(r"^## ", DESIGN, flags=re.M)[1:]
    without = [s.splitlines()[0] for s in sections if not re.search(r"^Files: `", s, re.M)]
    assert without == ["Decisions and their reasons", "Not there yet"]


def test_every_module_is_named_somewhere_or_in_a_named_folder():
    """The page leaves out small files of a folder, never a whole folder."""
    folders = {p.parent.relative_to(ROOT).as_posix() for p in ROOT.glob("interaction/*/*.py")}
    assert not [f for f in folders if f"{f}/" not in DESIGN]


@pytest.mark.parametrize("part", ["background"])
def test_parts_told_missing_are_missing(part):
    assert f"| `{part}` |" in DESIGN.split("## Not there yet")[1]
    assert not (ROOT / "interaction" / part).exists(), f"{part} has come; the page denies it"


# ---------------------------------------------------------------- words and order


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table after `heading`, its head left out."""
    after = DESIGN.split(f"{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", after, re.M)
    assert lines, f"no table after {heading}"
    cells = [[c.strip().strip("`") for c in r.strip("|").split("|")] for r in lines[0].splitlines()]
    return cells[2:]


def kind(control: Control) -> str:
    if control in CLOSERS:
        return "closer"
    if control in CHANNELS:
        return "channel"
    if control in TEXT_SOURCES:
        return "source"
    return {Control.BEGIN: "put in", Control.DONE: "ends a channel"}[control]


def test_control_tokens_and_their_order():
    told = [(int(r[0]), r[1], r[2]) for r in rows("### Control tokens")]
    assert told == [(int(c), c.name, kind(c)) for c in Control]


def test_limits_are_the_defaults():
    defaults = {n: p.default for n, p in inspect.signature(InteractionConfig).parameters.items()}
    defaults["max_patches"] = defaults["vision"].max_patches
    table = rows("## One micro-turn")
    assert len(table) == 5
    for _, name, value in table:
        assert int(value) == defaults[name], name


def test_order_of_imports():
    spec = importlib.util.spec_from_file_location("imports", ROOT / "tests" / "test_imports.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    section = DESIGN.split("## Who imports whom")[1].split("\n## ")[0]
    told = re.findall(r"^\d\. (.*)$", section, re.M)
    assert [tuple(row.split(", ")) for row in told] == list(module.LAYERS)


# ---------------------------------------------------------------- numbers


def model(config) -> InteractionConfig:
    return configuration.build(InteractionConfig, config.to_dict()["model"])


def billions(stack: TransformerConfig) -> tuple[str, str]:
    """Total and active parameters of the text backbone."""
    specs = transformer_specs(stack)
    routed = sum(int(np.prod(specs["moe"][name].shape)) for name in ("gate", "up", "down"))
    total = declare.count(specs)
    active = total - routed + routed * stack.experts_per_slot // stack.experts
    return f"{total / 1e9:.2f}", f"{active / 1e9:.2f}"


def test_table_of_inkling_small():
    config = model(inkling_small.get_config())
    stack = config.transformer
    near, far = stack.local, stack.global_
    assert near and far
    assert (near.heads, near.kv_heads, near.head_width) == (far.heads, far.kv_heads, far.head_width)
    total, active = billions(stack)
    expected = {
        "layers": stack.layers,
        "sliding layers / global layers": (
            stack.count(AttentionKind.LOCAL),
            stack.count(AttentionKind.GLOBAL),
        ),
        "dense layers / mixture layers": (stack.count(MlpKind.DENSE), stack.count(MlpKind.MOE)),
        "width": stack.width,
        "query heads / key-value heads / head width": (near.heads, near.kv_heads, near.head_width),
        "window of sliding layers": near.window,
        "bias extent, sliding / global": (near.bias_extent, far.bias_extent),
        "bias profiles": stack.bias_width,
        "dense feed-forward width": stack.dense_width,
        "expert feed-forward width": stack.expert_width,
        "routed experts / per slot / shared": (
            stack.experts,
            stack.experts_per_slot,
            stack.shared_experts,
        ),
        "route scale": stack.route_scale,
        "convolution width": stack.convolution_width,
        "length scaling from slot": stack.scaling_floor,
        "logits divisor": stack.logits_divisor,
        "vocabulary / kept": (stack.vocabulary, stack.logits_size),
        "text parameters, billions": total,
        "active parameters, billions": active,
        "arrays in the parameter tree": len(jax.tree.leaves(abstract_params(config))),
    }
    told = {r[0]: r[1] for r in rows("Numbers of `inkling_small`, as released:")}
    as_text = {
        name: " / ".join(map(str, v)) if isinstance(v, tuple) else str(v)
        for name, v in expected.items()
    }
    assert told == as_text


def slots_of_listening() -> int:
    """Slots of a micro-turn in which a sound is heard and nothing is said."""
    config = model(nano.get_config()).weave
    heard = AudioChunk(np.zeros((config.audio_frames, config.audio_bands), np.uint8))
    turn = MicroTurn(0, audio=(heard,), text_out=(config.control(Control.PASS),))
    return len(weave([turn], config).slots.stream)


def sentences() -> list[tuple[str, str]]:
    """What is checked, and the words that must stand on the page for the code's numbers."""
    grid, vocoder, spoken = Grid(), VocoderConfig(), MelConfig()
    defaults = {n: p.default for n, p in inspect.signature(InteractionConfig).parameters.items()}
    total, active = billions(model(tml_interaction_small.get_config()).transformer)
    delay, listening = vocoder.delay_samples, slots_of_listening()
    seconds = int(defaults["global_slots"] / listening * 0.2)
    loss, data = LossConfig(), DataConfig()
    chunk = f"{grid.samples:,} samples, {grid.audio_frames} heard frames, {grid.mel_frames} spoken"
    periods = f"2, 4, ... {2 ** defaults['time_scales']} micro-turns"
    return [
        ("chunk", chunk),
        ("delay", f"Its delay is {delay} samples ({delay * 1000 // grid.sample_rate} ms)"),
        ("delay at playback", f"The vocoder adds {delay} samples"),
        ("onset", f"held for {1000 * microturn.ONSET_MARGIN_SECONDS:.0f} ms"),
        ("lateness", f"`max_lateness` ({defaults['max_lateness']} by default)"),
        ("chunks", f"`max_audio_chunks` ({defaults['max_audio_chunks']})"),
        ("listening", f"takes {listening} slots: {grid.audio_frames} of audio, BEGIN, PASS"),
        ("ring", f"{defaults['global_slots']} slots are {seconds} seconds of listening"),
        ("periods", periods),
        ("taps", f"last {TransformerConfig.convolution_width - 1} *valid* slots"),
        ("rate", f"{audio.SAMPLE_RATE:,} samples per second, window {audio.WINDOW:,} samples"),
        ("hop", f"hop {audio.HOP} samples, {audio.BANDS} Slaney mel bands"),
        ("levels", f"clamped to [{audio.LOWEST:.0f}, {audio.HIGHEST:.0f}], nearest of "),
        ("levels", f"nearest of {audio.LEVELS} levels"),
        ("video", f"{grid.video_rate} frames per second: {grid.video_frames} frames per"),
        ("patch", f"{image.TUBELET_FRAMES} x {image.PATCH} x {image.PATCH} pixels"),
        ("mel", f"{spoken.bands} bands and one frame every {spoken.hop} samples (12.5 ms)"),
        ("range", f"{spoken.half_range} decades either way"),
        ("flow", f"sampling takes {FlowConfig.steps} Euler steps"),
        ("speech slots", f"cut into {defaults['speech_slots']} slots of 8 frames"),
        ("window", f"windows of {vocoder.n_fft} samples"),
        ("draws", f"{loss.flow_draws} draws of noise and time per chunk"),
        ("noise", f"a deviation between 0 and {loss.own_speech_noise}"),
        ("answer", f"end plus {data.answer_delay} s ({data.event_delay} s after an event"),
        ("announced", f"the announced {total} billion in total and {active} active"),
    ]


@pytest.mark.parametrize(("what", "words"), sentences())
def test_numbers_on_the_page_are_those_of_the_code(what, words):
    flat = re.sub(r"\s+", " ", DESIGN)
    assert words in flat, f"{what}: the code says {words!r}"


# ---------------------------------------------------------------- pictures


def draw_pictures():
    path = ROOT / "docs" / "draw_pictures.py"
    spec = importlib.util.spec_from_file_location("draw_pictures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_are_what_their_script_draws():
    for name, draw in draw_pictures().PICTURES.items():
        text = (ROOT / "docs" / name).read_text()
        assert text == draw(), f"run python docs/draw_pictures.py: {name} is old"
        assert xml.etree.ElementTree.fromstring(text).get("width") == "900"


def test_the_files_in_the_picture_of_the_data_are_there():
    text = (ROOT / "docs" / "data_flow.svg").read_text()
    names = re.findall(r"\b((?:streams|models|session|data|train|checkpoints)/\w+\.py)", text)
    assert len(names) > 10
    assert not [name for name in names if not (ROOT / "interaction" / name).is_file()]


# ---------------------------------------------------------------- notebooks


def cells(path: pathlib.Path) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_define_nothing(path):
    for cell in cells(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        tree = ast.parse("".join(cell["source"]))
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not any(isinstance(node, defined) for node in ast.walk(tree))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_notebooks_import_is_there(path):
    """Running them takes a minute and is `make notebooks`; this finds renamed things at once."""
    for cell in cells(path):
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("interaction"):
                exec(compile(ast.Module([node], []), path.name, "exec"), {})


@pytest.mark.slow
def test_the_guide_to_own_conversations_runs(monkeypatch):
    """From recordings to a session played to what was trained on them; its own assertions hold."""
    import nbclient
    import nbformat

    pytest.importorskip("espeakng_loader")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = ROOT / "notebooks" / "finetune_on_your_conversations.ipynb"
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own
        nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    printed = [o.get("text", "") for c in notebook.cells for o in c.get("outputs", [])]
    assert any("in the last five" in text for text in printed)
