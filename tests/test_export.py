"""Artefacts: exported programs equal the live step, run without the model's code, and are refused
when they are wrong.

In: a tiny random model, exported for the CPU with several lanes. Out: bitwise equality over several
micro-turns in every bucket, donation in force, one clear sentence per kind of broken artefact,
and a second process that compiles nothing.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
import soundfile

from interaction.checkpoints.safetensors_file import Reader
from interaction.eval import choose
from interaction.eval.records import Sample
from interaction.eval.runner import play
from interaction.serving import transcript
from interaction.serving.compilation_cache import use_compilation_cache
from interaction.serving.export import named
from interaction.serving.manifest import ArtefactError, Platform, read_manifest
from interaction.serving.runtime import Runtime, WarmUp, read_program
from interaction.session.lanes import buckets
from interaction.session.state import init_state
from interaction.session.step import compile_step
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import Control, TextIn
from tests.artefact_for_tests import (
    CONFIG,
    LANES,
    SAME_DEVICES,
    assert_same,
    exported,
    host,
    jax_cache_settings_kept,
    woven,
)
from tests.broken_artefacts import BROKEN
from tests.models_for_tests import random_params

ROOT = pathlib.Path(__file__).parents[1]
OLDER_EMITTER = "xla_cpu_disable_new_fusion_emitters"  # as tests/conftest.py asks for it
SEED = 11


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def artefact(params, tmp_path_factory) -> pathlib.Path:
    """Sound alone, and everything."""
    folder = tmp_path_factory.mktemp("export") / "cpu"
    return exported(params, folder, slice(0, 3, 2), platform=Platform.CPU, lanes=LANES)


@pytest.fixture(scope="module")
def small(params, tmp_path_factory) -> pathlib.Path:
    """Sound alone."""
    folder = tmp_path_factory.mktemp("export") / "small"
    return exported(params, folder, slice(0, 1), platform=Platform.CPU, lanes=LANES)


@dataclasses.dataclass(frozen=True)
class Warmed:
    """A runtime, what warming it up took, and the folder that its programs are kept in."""

    runtime: Runtime
    took: WarmUp
    cache: pathlib.Path


@pytest.fixture(scope="module")
def warmed(artefact, tmp_path_factory) -> Warmed:
    cache = tmp_path_factory.mktemp("compiled")
    runtime = Runtime(artefact, seed=SEED)
    with jax_cache_settings_kept():
        use_compilation_cache(cache)
        return Warmed(runtime, runtime.warm_up(), cache)


@pytest.fixture(scope="module")
def runtime(warmed) -> Runtime:
    return warmed.runtime


# ---------------------------------------------------------------------------- equality


def test_the_artefact_steps_as_the_live_step_bit_for_bit(request):
    """As XLA compiles by default: its older emitter of fusions rounds the two apart, so where
    `tests/conftest.py` asked for that, this test runs in a process of its own."""
    flags, older = os.environ["XLA_FLAGS"], f"--xla_backend_extra_options={OLDER_EMITTER}"
    if older in flags:
        test = f"{__file__}::{request.node.name}"
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
            cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags.replace(older, "")},
            capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0 and "1 passed" in ran.stdout, ran.stdout + ran.stderr
        return
    runtime, params = (request.getfixturevalue(name) for name in ("runtime", "params"))
    step, state = compile_step(CONFIG), init_state(CONFIG, LANES, seed=SEED)
    runtime.begin(SEED)
    assert_same(runtime.state, host(named(state)))
    spoke = set()
    for now in range(7):
        state, wanted = step(params, state, woven(now))
        found = runtime.step(vars(woven(now)))
        assert_same(found, host(named(wanted)))
        spoke.add(tuple(found["tokens"][0].tolist()))
    assert_same(runtime.state, host(named(state)))
    assert len(spoke) > 1, "the model put out the same ids whatever it heard"


def test_state_can_be_taken_out_and_put_back(runtime):
    runtime.begin(SEED)
    runtime.step(vars(woven(0)))
    snapshot = runtime.state
    wanted = [runtime.step(vars(woven(now))) for now in (1, 2)]
    runtime.begin(SEED + 1)
    runtime.state = snapshot
    for now, want in zip((1, 2), wanted, strict=True):
        assert_same(runtime.step(vars(woven(now))), want)
    with pytest.raises(ValueError, match=r"state: heard is int32\[2\], expected int32\[3\]"):
        runtime.state = snapshot | {"heard": snapshot["heard"][:2]}


def test_a_lane_is_admitted_and_the_others_feel_nothing(runtime):
    runtime.begin(SEED)
    for now in range(2):
        runtime.step(vars(woven(now)))
    before = runtime.state
    runtime.admit(np.array([False, True, False]), seed=29)
    after = runtime.state
    runtime.begin(29)
    fresh = runtime.state
    moved = 0
    for leaf in runtime.manifest.state:
        assert leaf.lane_axis is not None, leaf.name
        for lane, source in enumerate((before, fresh, before)):
            found, wanted = (np.take(s[leaf.name], lane, leaf.lane_axis) for s in (after, source))
            np.testing.assert_array_equal(found, wanted, err_msg=leaf.name)
        moved += not np.array_equal(before[leaf.name], after[leaf.name])
    assert moved > 5


@pytest.mark.slow
def test_the_raw_stablehlo_runs_through_pjrt_with_the_manifest_alone(runtime, artefact):
    """What a server in another language does: kept arguments in flat order, state given away."""
    from jaxlib import _jax, xla_client

    listed = read_manifest(artefact)
    program = listed.program(listed.buckets[0].program)
    client = jax.devices()[0].client
    executable = client.compile_and_load(
        (artefact / program.stablehlo.name).read_bytes(),
        _jax.DeviceList(tuple(jax.devices()[:1])),
        xla_client.CompileOptions(),
    )
    reader = Reader(artefact / listed.parameter_files[0].name)
    runtime.begin(SEED)
    state, inputs = runtime.state, vars(woven(0))
    wanted = runtime.step(inputs)
    flat = [reader.read(leaf.name) for leaf in listed.parameters]
    flat += [state[leaf.name] for leaf in listed.state]
    flat += [inputs[leaf.name] for leaf in program.inputs]
    reader.close()
    assert 0 < len(program.kept) < len(flat), "vision parameters do not matter to sound alone"
    given = [jax.device_put(flat[index]) for index in program.kept]
    results = executable.execute_sharded(given).disassemble_into_single_device_arrays()
    arrays = [np.array(result[0]) for result in results]
    found = dict(zip([leaf.name for leaf in listed.state], arrays, strict=False))
    assert_same(found, runtime.state)
    outputs = arrays[len(listed.state) :]
    for leaf, array in zip(listed.outputs, outputs, strict=True):
        # Compiled with other options than jax's: sums may be rounded in another order.
        np.testing.assert_allclose(array, wanted[leaf.name], atol=1e-5, err_msg=leaf.name)
    donated = [array for index, array in zip(program.kept, given, strict=True)
               if index in program.donated]  # fmt: skip
    assert len(donated) == len(listed.state)
    assert all(array.is_deleted() for array in donated)


# ---------------------------------------------------------------------------- donation


def test_the_state_is_updated_in_place(runtime, artefact):
    listed = runtime.manifest
    held = runtime.memory()
    for bucket in listed.buckets:
        assert held[bucket.program] == listed.bytes_of_state
    assert held["admit"] == listed.bytes_of_state
    runtime.begin(SEED)
    old = runtime.device_state
    runtime.step(vars(woven(0)))
    assert all(leaf.is_deleted() for leaf in old.values())


def test_a_loader_that_does_not_donate_again_copies_the_state(artefact):
    """The broken variant: what the runtime would do without its `donate_argnums`."""
    listed = read_manifest(artefact)
    program = listed.program("admit")
    found = read_program(artefact, listed, program)
    groups = [
        {leaf.name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves}
        for leaves in (listed.state, program.inputs)
    ]
    compiled = jax.jit(found.call).lower(*groups).compile()
    assert compiled.memory_analysis().alias_size_in_bytes == 0


# ---------------------------------------------------------------------------- manifest


def test_the_manifest_says_everything_a_server_needs(artefact, params):
    listed = read_manifest(artefact)
    assert [leaf.name for leaf in listed.parameters] == sorted(
        leaf.name for leaf in listed.parameters
    )
    reader = Reader(artefact / "params.safetensors")
    assert {n: i.shape for n, i in reader.tensors.items()} == {
        leaf.name: leaf.shape for leaf in listed.parameters
    }
    reader.close()
    assert (listed.lanes, listed.platform, listed.experts) == (LANES, Platform.CPU, "float32")
    assert listed.tokens.controls["SPEAK"] == CONFIG.ordinary_tokens + int(Control.SPEAK)
    assert listed.tokens.streams["TEXT_IN"] == 2
    sizes = [(b.slots, b.patches) for b in listed.buckets]
    assert sizes == [(b.slots, b.patches) for b in buckets(CONFIG)[::2]]
    step = listed.program(listed.buckets[0].program)
    assert (step.arguments, step.results) == (
        ("parameters", "state", "inputs"),
        ("state", "outputs"),
    )
    assert len(step.donated) == len(listed.state)
    text = (artefact / "manifest.json").read_text()
    assert str(ROOT) not in text


def test_the_same_program_is_the_same_bytes_and_names_no_folder(artefact, small):
    first, again = read_manifest(artefact), read_manifest(small)
    assert len(again.programs) == 3
    for program in again.programs:
        assert program == first.program(program.name)
        content = (small / program.exported.name).read_bytes()
        assert os.fsencode(ROOT) not in content
        assert b".py" not in content


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("case", BROKEN)
def test_a_wrong_or_aged_artefact_is_refused_in_one_sentence(artefact, tmp_path, case):
    harm, message = BROKEN[case]
    folder = tmp_path / "artefact"
    shutil.copytree(artefact, folder)
    harm(folder)
    with pytest.raises(ArtefactError, match=message) as caught:
        Runtime(folder)
    assert "\n" not in str(caught.value)


def test_inputs_that_fit_no_bucket_are_refused_and_nothing_moves(runtime):
    runtime.begin(SEED)
    before = runtime.state
    good = vars(woven(0))
    for change, message in (
        ({"active": np.ones(LANES + 1, bool)}, r"active is bool\[4\], expected bool\[3\]"),
        ({"token": good["token"].astype(np.int64)}, r"token is int64\[3, 5\], expected int32"),
        ({"colour": np.zeros(1)}, "colour is none of"),
    ):
        with pytest.raises(ValueError, match=message):
            runtime.step(good | change)
    with pytest.raises(ValueError, match="waveform is missing"):
        runtime.step({n: v for n, v in good.items() if n != "waveform"})
    with pytest.raises(ValueError, match=r"lanes is bool\[2\], expected bool\[3\]"):
        runtime.admit(np.ones(2, bool), seed=1)
    assert_same(runtime.state, before)


def test_system_text_beyond_what_a_lane_can_pin_is_refused(runtime):
    """Up to the limit it is taken in, slot for slot; the other lanes' text does not count."""
    runtime.begin(SEED)
    bound, size = runtime.manifest.pinned, buckets(CONFIG)[2]
    assert bound.limit == CONFIG.global_slots - CONFIG.weave.max_slots

    def step(now: int, source: Control, count: int):
        text = TextIn(source, (65,) * (count - 1))
        row = [LaneInput(now), LaneInput(now, text_in=(text,)), None]
        return vars(weave_inputs(row, CONFIG.weave, slots=size.slots, patches=size.patches))

    left, now = bound.limit, 0
    while left > 1:
        count = min(left, CONFIG.max_text_in)
        runtime.step(step(now, Control.SYSTEM, count))
        left, now = left - count, now + 1
        pinned = np.sum(runtime.state[bound.leaf] == bound.value, axis=1)
        assert pinned.tolist() == [0, bound.limit - left, 0]
    before = runtime.state
    message = rf"lane 1: system text takes {bound.limit - left + 2} slots.*can pin {bound.limit}"
    with pytest.raises(ValueError, match=message):
        runtime.step(step(now, Control.SYSTEM, 2))
    assert_same(runtime.state, before)
    runtime.step(step(now, Control.USER, 2))


def test_a_runtime_that_is_not_warm_says_so(artefact):
    with pytest.raises(RuntimeError, match=r"warm_up\(\) first"):
        Runtime(artefact).step(vars(woven(0)))


# ---------------------------------------------------------------------------- other processes

ALONE = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({blocked!r}):
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
try:
    import interaction.models
except ImportError:
    pass
else:
    raise SystemExit("the block does not block")
import numpy as np
from interaction.serving.compilation_cache import use_compilation_cache
from interaction.serving.runtime import Runtime
import interaction.serving.transcript

artefact, inputs, outputs, cache = sys.argv[1:]
use_compilation_cache(cache)
runtime = Runtime(artefact, seed={seed})
warm = runtime.warm_up()
found = runtime.step(dict(np.load(inputs)))
np.savez(outputs, **found)
print(json.dumps([warm.programs, warm.compiled, warm.cached, warm.seconds]))
"""


def test_it_runs_without_the_model_and_a_second_process_compiles_nothing(
    warmed, artefact, tmp_path
):
    blocked = ("interaction.models", "interaction.session", "interaction.data", "flax")
    np.savez(tmp_path / "inputs.npz", **vars(woven(0)))
    warmed.runtime.begin(SEED)
    wanted = warmed.runtime.step(vars(woven(0)))
    answer = tmp_path / "outputs.npz"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE.format(blocked=blocked, seed=SEED),
         artefact, tmp_path / "inputs.npz", answer, warmed.cache],
        cwd=ROOT, env=os.environ | SAME_DEVICES | {"PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same(dict(np.load(answer)), wanted)
    programs, first = len(read_manifest(artefact).programs), warmed.took
    *second, took = json.loads(done.stdout)
    print("warm-up seconds", first.seconds, took)
    assert [first.programs, first.compiled, first.cached] == [programs, programs, 0]
    assert second == [programs, 0, programs]


def test_a_recording_is_played_through_an_artefact(runtime, tmp_path):
    wave = 0.1 * np.random.default_rng(0).normal(size=5000)
    soundfile.write(tmp_path / "noise.wav", wave, 16_000)
    lines: list[str] = []
    out = tmp_path / "answer.wav"
    transcript.play(runtime, str(tmp_path / "noise.wav"), out=str(out), show=lines.append)
    assert "tiny for cpu" in lines[0]
    assert "4 programs ready" in lines[1]
    assert any("12 micro-turns (2.4 s)" in line for line in lines)
    assert soundfile.info(out).frames == 12 * CONFIG.grid.samples


def test_a_transcript_is_not_read_with_other_ids(artefact):
    listed = read_manifest(artefact)
    transcript.check_tokens(listed)
    for change, message in (
        ({"controls": listed.tokens.controls | {"SAY": 999}}, "SAY has id 999 in the artefact"),
        ({"tokenizer": "runes"}, "tokenizer is 'runes'"),
    ):
        tokens = dataclasses.replace(listed.tokens, **change)
        with pytest.raises(ArtefactError, match=message):
            transcript.check_tokens(dataclasses.replace(listed, tokens=tokens))


def test_an_artefact_is_a_system_under_test(small, warmed):
    """Through the evaluation: what its board puts out is what its programs do."""
    with jax_cache_settings_kept():
        use_compilation_cache(warmed.cache)  # the same bytes, so compiled already
        plays_as_its_programs_do(small)


def plays_as_its_programs_do(small):
    given = choose.Given(str(small), artefact="interaction.serving.board:ArtefactBoard", seed=4)
    (spec,) = choose.systems("model", given)
    system = spec.build()
    wave = 0.3 * np.random.default_rng(1).normal(size=round(1.4 * 16_000)).astype(np.float32)
    sample = Sample("toy", "noise", "n", 1.4, audio=wave)
    first, again = play(system, sample), play(system, sample)
    assert first.system == small.name
    assert len(first.step_seconds) == sample.micro_turns == 7
    assert [(e.t, e.kind) for e in first.events] == [(e.t, e.kind) for e in again.events]
    np.testing.assert_array_equal(first.waveform(), again.waveform())

    board = system._board
    raw, bucket = board._lanes._runtime, read_manifest(small).buckets[0]
    inputs = [
        LaneInput(now, audio=((now, wave[now * 3200 : (now + 1) * 3200]),)) for now in range(3)
    ]
    board.begin(SEED)
    found = [board.step(one) for one in inputs]
    raw.begin(SEED)
    for one, output in zip(inputs, found, strict=True):
        lanes = [one] + [None] * (LANES - 1)
        weave = weave_inputs(lanes, CONFIG.weave, slots=bucket.slots, patches=bucket.patches)
        wanted = raw.step(vars(weave))
        assert output.tokens == tuple(t for t in wanted["tokens"][0].tolist() if t >= 0)
        np.testing.assert_array_equal(output.waveform, wanted["waveform"][0])
        assert output.forgotten_text == int(wanted["forgotten_text"][0]) == 0
    other = board.step(dataclasses.replace(inputs[0], micro_turn=3))
    assert any(
        not np.array_equal(other.waveform, output.waveform) or other.tokens != output.tokens
        for output in found
    )
    counted, own = iter((2, 2, 5)), raw.step  # the program counts from the session's start
    raw.step = lambda inputs: own(inputs) | {"forgotten_text": np.full(LANES, next(counted))}
    board.begin(SEED)
    assert [board.step(one).forgotten_text for one in inputs] == [2, 0, 3]
