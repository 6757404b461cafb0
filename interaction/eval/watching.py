"""The behaviours of the curriculum while a model trains: what it does, not what its loss is.

In: parameters. Out: a few shares and one score in 0..1, or the record of one session to look at
and listen to. The sessions have training voices, names and scenes in sessions that training never
makes: they say what is learnt and which checkpoint is best, and leave the held-out ones untouched
for the final evaluation. A loss over forced outputs does not say that: it falls while a model that
has to live with its own outputs still hears nothing.
"""

import functools
import pathlib
import tempfile

from interaction.data.clips import Split
from interaction.eval.ears import FromText
from interaction.eval.judges import ClosedAnswer
from interaction.eval.records import Clock, Sample
from interaction.eval.runner import play
from interaction.eval.suite import Better, Mode, Scoring
from interaction.eval.suites import small_world
from interaction.eval.systems.model import LanesBoard, Model
from interaction.models.config import InteractionConfig
from interaction.session.demo import shipped_recording
from interaction.session.lanes import Lanes
from interaction.session.loop import Pace, converse
from interaction.session.record import SessionRecord
from interaction.session.recording import Recording

SEED = 77_000


@functools.cache
def sessions(each: int, seed: int = SEED) -> tuple[Sample, ...]:
    """`each` sessions of every behaviour, behaviours in turn."""
    with tempfile.TemporaryDirectory() as folder:
        small_world.generate(pathlib.Path(folder), size=each, seed=seed, split=Split.TRAIN)
        found = small_world.SmallWorld().load(pathlib.Path(folder))
    return tuple(sorted(found, key=lambda sample: (sample.id.split("/")[1], sample.scene)))


def curriculum_validation(
    params: dict, config: InteractionConfig, *, each: int = 2, seed: int = SEED
) -> dict[str, float]:
    """Plays `each` sessions of every behaviour; half a minute of one core at the size of mini.

    Args:
        params: the whole tree, vocoder included.
        config: the model.
        each: sessions of every behaviour.
        seed: of the sessions.

    Returns:
        The shares of suite ``small_world``, words as the model writes them and compute time 0,
        and ``score``: their mean, those that should be low taken from 1; times do not count.
    """
    system = Model(lambda: LanesBoard(params, config))
    samples = sessions(each, seed)
    runs = {sample.id: play(system, sample) for sample in samples}
    how = Scoring(FromText(), Clock.INSTANT, ClosedAnswer(), Mode.STRICT)
    figures = small_world.SmallWorld().score(samples, runs, how)
    shares = {f.name: f for f in figures if not f.name.endswith(", s")}
    good = [
        1.0 - f.measured.value if f.better is Better.LOWER else f.measured.value
        for f in shares.values()
    ]
    return {n: f.measured.value for n, f in shares.items()} | {"score": sum(good) / len(good)}


def curriculum_session(
    params: dict, config: InteractionConfig, index: int, *, seed: int = SEED
) -> tuple[str, SessionRecord]:
    """One session of a behaviour, the `index`-th in turn: its name and what happened in it."""
    found = sessions(1, seed)
    sample = found[index % len(found)]
    recording = Recording(
        audio=sample.audio, video=sample.video, text=sample.text, seconds=sample.seconds
    )
    return sample.scene, _converse(params, config, recording)


def shipped_session(params: dict, config: InteractionConfig) -> tuple[str, SessionRecord]:
    """The recording of ``launch.py demo``: digits, words and a video."""
    recording, _, _ = shipped_recording(None)
    return "demo", _converse(params, config, recording)


def _converse(params: dict, config: InteractionConfig, recording: Recording) -> SessionRecord:
    lanes = Lanes(params, config)
    lanes.warm_up()
    return converse(lanes, recording, pace=Pace.INSTANT)
