"""What TimeSpeak and CueSpeak share: one expected meaning in one window of time.

In: `examples.jsonl` with the sound files it names. Out: samples, what is right at which time, and
figures. An example is right if something put out from within its window on has the expected
meaning (a judge says so) and begins within the window; the figure is the macro-average over kinds.

The announced sets are private and give no width of the window. Ours are rebuilt: the window is
`WIDTH` seconds either side of the target, cut off where the system cannot know yet, and every
width of `SWEEP` is reported. COMPAT is the announced rule. STRICT also fails an example in which
the expected words themselves, and nothing else, are put out at a time when they are not due:
under the announced rule one who says them without pause is always right.
"""

import abc
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from interaction.eval.averages import macro, mean
from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT, bootstrap
from interaction.eval.normalise import normalise
from interaction.eval.records import Kind, OutputEvent, Run, Sample
from interaction.eval.suite import (
    Better,
    Figure,
    Judge,
    Mode,
    Question,
    Scoring,
    Source,
    Word,
)
from interaction.eval.suites.instructions import Form
from interaction.eval.suites.replies import put_out, utterances
from interaction.streams.events import TextEvent
from interaction.streams.media import read_audio, write_wav
from interaction.types import Control

WIDTH = 1.0
SWEEP = (0.25, 0.5, 1.0, 2.0)
FILE = "examples.jsonl"
_EDGE = 1e-6  # float rounding of times


@dataclasses.dataclass(frozen=True)
class Example:
    """One instruction with its truth; times in session seconds.

    Attributes:
        id: unique in its set.
        kind: the macro-average is over these.
        audio: file of the whole session's sound, relative to the folder.
        typed: the same as text: (seconds, text).
        seconds: length of the session.
        expected: the meaning that is due, in words.
        target: when it is due.
        earliest: before this nobody can know; the window never begins before it.
        also: further times at which the expected words are due and no mistake.
    """

    id: str
    kind: str
    audio: str
    typed: tuple[tuple[float, str], ...]
    seconds: float
    expected: str
    target: float
    earliest: float
    also: tuple[float, ...] = ()

    def __post_init__(self):
        if not 0 <= self.earliest <= self.target <= self.seconds:
            raise ValueError(
                f"{self.id}: need 0 <= earliest={self.earliest} <= target={self.target} <= "
                f"seconds={self.seconds}"
            )

    def window(self, half: float = WIDTH) -> tuple[float, float]:
        """When the answer may begin, both ends included."""
        return max(self.earliest, self.target - half), self.target + half

    def as_json(self) -> dict:
        """For a line of the file; the window at the default width beside what it follows from."""
        return dataclasses.asdict(self) | {"window": list(self.window())}


def example_of(entry: Mapping) -> Example:
    """Reads a line of the file.

    Raises:
        ValueError: a key is missing.
    """
    names = [field.name for field in dataclasses.fields(Example)]
    missing = [name for name in names if name not in entry]
    if missing:
        raise ValueError(f"example {entry.get('id', '?')!r} has no {', '.join(missing)}")
    values = {name: entry[name] for name in names}
    values["typed"] = tuple((float(t), str(text)) for t, text in entry["typed"])
    values["also"] = tuple(float(t) for t in entry["also"])
    return Example(**values)


def write_examples(
    folder: pathlib.Path, examples: Sequence[Example], sounds: Sequence[np.ndarray]
) -> None:
    """Writes the file and its sounds."""
    folder.mkdir(parents=True, exist_ok=True)
    for example, sound in zip(examples, sounds, strict=True):
        path = folder / example.audio
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, sound)
    lines = [json.dumps(example.as_json()) for example in examples]
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_examples(folder: pathlib.Path, suite: str) -> list[Sample]:
    """Every example as two samples, one spoken and one typed.

    Raises:
        ValueError: no such file in the folder, or a line without a key.
    """
    path = pathlib.Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {FILE}; a {suite} set is that file and its sounds")
    samples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        example = example_of(json.loads(line))
        truth = example.as_json()
        for form in Form:
            spoken = form is Form.SPOKEN
            samples.append(
                Sample(
                    suite=suite,
                    scene=form.value,
                    id=f"{example.id}-{form.value}",
                    seconds=example.seconds,
                    audio=read_audio(path.parent / example.audio) if spoken else None,
                    text=()
                    if spoken
                    else tuple(TextEvent(t, Control.USER, text) for t, text in example.typed),
                    truth=truth,
                )
            )
    return samples


def say_event(time: float, text: str) -> OutputEvent:
    """A `say` event of a perfect system."""
    return OutputEvent(time, Kind.TEXT, {"channel": "say", "text": text})


def oracle_events(sample: Sample) -> list[OutputEvent]:
    """The expected words at the target and wherever else they are due."""
    example = example_of(sample.truth)
    return [say_event(t, example.expected) for t in sorted((example.target, *example.also))]


# ---------------------------------------------------------------- scoring


def answers_in(words: Sequence[Word], window: tuple[float, float]) -> list[str]:
    """Text of every utterance from its first word in the window on, to the utterance's end."""
    low, high = window[0] - _EDGE, window[1] + _EDGE
    result = []
    for utterance in utterances(words):
        inside = [i for i, word in enumerate(utterance.words) if low <= word.start <= high]
        if inside:
            result.append(" ".join(word.text for word in utterance.words[inside[0] :]))
    return result


def untimely(words: Sequence[Word], example: Example, half: float) -> bool:
    """The expected words alone are put out when they are not due."""
    due = [example.window(half), *((t - half, t + half) for t in example.also)]
    expected = normalise(example.expected)
    return any(
        normalise(utterance.text) == expected
        and not any(low - _EDGE <= utterance.start <= high + _EDGE for low, high in due)
        for utterance in utterances(words)
    )


def is_right(
    words: Sequence[Word],
    example: Example,
    half: float,
    *,
    mode: Mode,
    same: Callable[[str, str], bool],
) -> bool:
    """Meaning and window are right; STRICT: and nothing is said when it is not due.

    Args:
        words: what was put out, in order of time.
        example: the truth.
        half: half-width of the window in seconds.
        mode: see the file's first lines.
        same: whether (answer, expected) mean the same.
    """
    if not any(same(text, example.expected) for text in answers_in(words, example.window(half))):
        return False
    return mode is Mode.COMPAT or not untimely(words, example, half)


def same_meaning(judge: Judge) -> Callable[[str, str], bool]:
    """Asks a judge, once for each pair."""
    known: dict[tuple[str, str], bool] = {}

    def same(answer: str, expected: str) -> bool:
        if (answer, expected) not in known:
            prompt = (
                "A voice assistant was to say something at a certain moment.\n"
                f"Expected: {expected}\nIt said: {answer}\n"
                "Does what it said carry the expected meaning? Answer yes or no."
            )
            question = Question("same meaning", prompt, answer, expected)
            known[answer, expected] = judge.verdict(question).choice == "yes"
        return known[answer, expected]

    return same


def score_examples(
    samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
) -> list[Figure]:
    """Macro accuracy at every width, accuracy of every kind, and how late the right ones are."""
    same, board = same_meaning(how.judge), Board(how.mode, how.clock)
    for scene in sorted({sample.scene for sample in samples}):
        chosen = [sample for sample in samples if sample.scene == scene]
        examples = {s.id: example_of(s.truth) for s in chosen}
        words = {s.id: put_out(runs[s.id], how) for s in chosen}

        def row(name, measured, values, scene=scene):
            by = how.judge.name
            board.add(
                scene, name, measured, values, Better.HIGHER, oracle=100.0, silent=0.0, judge=by
            )

        for half in sorted(SWEEP, key=lambda half: half != WIDTH):
            values = {
                key: 100.0 * is_right(words[key], example, half, mode=how.mode, same=same)
                for key, example in examples.items()
            }
            kinds: dict[str, list[float]] = {}
            for key, value in values.items():
                kinds.setdefault(examples[key].kind, []).append(value)
            row(
                f"macro accuracy, window of {half:g} s either side (%)",
                macro(kinds, bounds=PERCENT),
                values,
            )
            if half == WIDTH:
                for kind in sorted(kinds):
                    own = {k: v for k, v in values.items() if examples[k].kind == kind}
                    name = f"accuracy of {kind}, window of {half:g} s either side (%)"
                    row(name, mean(list(own.values()), bounds=PERCENT), own)
        late = {key: _lateness(words[key], examples[key], same) for key in examples}
        known = {key: value for key, value in late.items() if not math.isnan(value)}
        name = "median lateness of the right words within 2 s (s)"
        measured = bootstrap(list(known.values()))
        board.add(scene, name, measured, known, Better.LOWER, oracle=0.0, judge=how.judge.name)
    return board.figures


def _lateness(words, example: Example, same) -> float:
    """Onset of the first utterance with the expected meaning in the widest window, from target."""
    low, high = example.window(max(SWEEP))
    for utterance in utterances(words):
        if low - _EDGE <= utterance.start <= high + _EDGE and same(
            utterance.text, example.expected
        ):
            return utterance.start - example.target
    return math.nan


class TimedSpeech(abc.ABC):
    """What both suites are; each has a `name`, a `source`, and makes its own examples."""

    name: str
    source: Source

    @abc.abstractmethod
    def make(self, index: int, seed: int) -> tuple[Example, np.ndarray]:
        """One generated example and its sound, float32 ``[W]`` at 16 kHz."""

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """`size` instructions, kinds in turn; needs the `voices` extra."""
        made = [self.make(index, seed) for index in range(size)]
        write_examples(pathlib.Path(folder), [m[0] for m in made], [m[1] for m in made])

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Each instruction spoken and typed (what follows it, word by word as it is spoken)."""
        return load_examples(folder, self.name)

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """The words, when they are due."""
        return oracle_events(sample)

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """See `score_examples`."""
        return score_examples(samples, runs, how)
