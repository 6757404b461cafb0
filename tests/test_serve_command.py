"""What `launch.py serve` serves: an exported artefact as well as a checkpoint; how it ends.

In: a tiny random model, exported with several lanes. Out: sessions over WebSockets equal to those
of the artefact stepped directly, whoever is beside them; one sentence where options do not fit; the
command's exit status.
"""

import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import launch
from interaction.eval.runner import play
from interaction.eval.systems.model import Model
from interaction.eval.systems.remote import Remote
from interaction.kernels.implementation import Implementation
from interaction.models.checkpoint import save_model
from interaction.models.config import CacheType
from interaction.serving.artefact_lanes import ArtefactLanes
from interaction.serving.manifest import Platform
from interaction.streams.weave import LaneInput
from tests.artefact_for_tests import exported
from tests.models_for_tests import LIVE as CONFIG
from tests.models_for_tests import LIVE_LANES as LANES
from tests.models_for_tests import random_params

pytest.importorskip("aiohttp.web")
import aiohttp

from interaction.serving import command
from interaction.serving.options import add_options
from interaction.serving.shared_lanes import SharedLanes
from tests.server_for_tests import TALKS, FirstLane, Running, assert_same, play_on, sample

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> pathlib.Path:
    """For sound alone: each bucket takes seconds to lower and to compile."""
    folder = tmp_path_factory.mktemp("served") / "cpu"
    params = random_params(CONFIG, seed=TALKS)
    return exported(params, folder, slice(0, 1), platform=Platform.CPU, lanes=LANES)


@pytest.fixture(scope="module")
def lanes(artefact) -> ArtefactLanes:
    """Lent to one test after the other, all free."""
    return ArtefactLanes(artefact)


def test_a_served_artefact_gives_what_it_gives_stepped_directly(artefact, lanes):
    """Beside another session, which came later and is at another micro-turn."""
    first, second = sample("first/1"), sample("second/2", seconds=2.0)
    wanted = play(Model(lambda: FirstLane(lanes)), first)
    lanes.close(0)
    shared = SharedLanes(lambda: lanes)
    running = Running(shared)
    try:
        client, other = (Remote(running.url, pause=0.01, timeout=300) for _ in range(2))

        class Beside(Remote):
            """Lets a whole other session go by once its own has begun."""

            def converse(self, sample):
                conversation = super().converse(sample)
                assert len(play(other, second).events) > 0
                return conversation

        beside = Beside(running.url, pause=0.01, timeout=300)
        assert_same(play(beside, first), wanted)
        assert_same(play(client, first), wanted)
        for each in (client, other, beside):
            each.shut_down()
        running.until_sessions(0)
        assert running.health()[1]["lanes"] == LANES
    finally:
        running.stop()
        shared.shut_down()


def test_lanes_of_an_artefact_come_and_go(lanes):
    def heard(now, seed=0):
        sound = 0.1 * np.random.default_rng(seed + now).normal(size=3200)
        return LaneInput(now, audio=((now, sound.astype(np.float32)),))

    assert [lanes.open(seed=n) for n in range(LANES)] == list(range(LANES))
    with pytest.raises(ValueError, match=f"all of lanes={LANES} lanes hold a session"):
        lanes.open(seed=9)
    lanes.step([heard(0), None, heard(0, 5)])
    with pytest.raises(ValueError, match="lane 0 is at micro_turn=1, its input is of micro_turn=0"):
        lanes.step([heard(0), None, None])
    alone = lanes.step([heard(1), None, None])[0]
    lanes.close(0)
    with pytest.raises(ValueError, match="lane=0 holds no session"):
        lanes.step([heard(2), None, None])
    with pytest.raises(ValueError, match="lane=0 holds no session"):
        lanes.close(0)
    assert lanes.open(seed=0) == 0  # the same session again, in a lane that was used
    lanes.step([heard(0), heard(0, 7), None])
    again = lanes.step([heard(1), None, heard(1, 5)])[0]
    assert again.tokens == alone.tokens
    np.testing.assert_array_equal(again.waveform, alone.waveform)
    for lane in range(LANES):
        lanes.close(lane)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--artefact", "{}", "--lanes", "2"], f"lanes=2: .* was exported with lanes={LANES}"),
        (["--artefact", "absent"], "absent is no artefact: it has no manifest.json"),
        (["--artefact", "{}", "--kernels", "native"], "kernels=native is for a checkpoint"),
        (["--artefact", "{}", "--weights", "bfloat16"], "weights=bfloat16 is for a checkpoint"),
        (["--artefact", "{}", "--cache", "bfloat16"], "cache=bfloat16 is for a checkpoint"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(artefact, options, sentence, capsys):
    given = [option.format(artefact) for option in options]
    assert launch.main(["serve", *given, "--compilation-cache", "off"]) == 1
    assert re.search(f"^error: {sentence}", capsys.readouterr().err)


def test_a_checkpoint_is_computed_as_asked(tmp_path):
    save_model(tmp_path / "tiny", random_params(CONFIG, seed=TALKS), CONFIG)
    parser = argparse.ArgumentParser()
    add_options(parser)
    plain = ["--checkpoint", str(tmp_path / "tiny")]
    asked = [*plain, "--kernels", "native", "--weights", "bfloat16", "--cache", "bfloat16"]
    params, config, lanes = command._lanes(parser.parse_args(asked)).args
    assert config.cache_type is CacheType.BFLOAT16
    assert command._lanes(parser.parse_args(plain)).args[1].cache_type is CacheType.FLOAT32
    assert config.transformer.implementation is Implementation.NATIVE and lanes == command.LANES
    stack = params["transformer"]
    assert stack["unembed"].dtype == stack["moe"]["gate"].dtype == jnp.bfloat16
    assert stack["moe"]["router"].dtype == stack["block"]["mlp_norm"].dtype == jnp.float32


def test_one_thing_is_served(capsys):
    for options in ([], ["--checkpoint", "a", "--artefact", "b"]):
        with pytest.raises(SystemExit):
            launch.main(["serve", *options])
    assert "--artefact: not allowed with argument --checkpoint" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number", "status"),
    [
        ("checkpoint", signal.SIGTERM, 0),
        ("checkpoint", signal.SIGUSR2, 75),
        ("artefact", signal.SIGTERM, 0),
    ],
)
def test_the_command_ends_as_it_is_told(artefact, tmp_path, kind, number, status):
    if kind == "checkpoint":
        save_model(tmp_path / "tiny", random_params(CONFIG, seed=TALKS), CONFIG)
    given = {"checkpoint": tmp_path / "tiny", "artefact": artefact}
    command = [
        sys.executable, str(ROOT / "launch.py"), "serve", f"--{kind}", str(given[kind]),
        "--lanes", str(LANES), "--port", "0", "--drain-seconds", "0.5",
        "--compilation-cache", os.environ["JAX_COMPILATION_CACHE_DIR"],
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            said = [child.stdout.readline(), child.stdout.readline()]
            found = re.search(r"listening on (ws://127\.0\.0\.1:\d+/)", said[1])
            assert found, said
            client = Remote(found[1], timeout=300)
            session = client.converse(sample())
            child.send_signal(number)
            assert child.wait(60) == status
            with pytest.raises((ConnectionError, aiohttp.ClientError)):
                play_on(session)
            session.close()
            client.shut_down()
        finally:
            child.kill()
