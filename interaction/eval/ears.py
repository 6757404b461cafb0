"""What a run said and when: two kinds of ears.

In: a `Run` and a clock. Out: its words with times and its stretches of speech. `FromText` believes
the text that a system puts out and only times it; `TwoPass` listens to the sound: Silero finds
speech, Whisper-base writes it down, PocketSphinx lays the text over the sound, and where it cannot
the words are spread between Silero's edges. Whisper's own times are not used: after silence its
first word is early by some 0.4 s (`experiments/word_times.py`).
"""

import collections
import dataclasses
import enum
import hashlib
import importlib.metadata
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np

from interaction.eval import speech_segments as silero
from interaction.eval import whisper, word_alignment
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, Run
from interaction.eval.spans import Span, covered, merge
from interaction.eval.suite import Word


class Path(enum.Enum):
    """How a word got its times."""

    ALIGNED = "PocketSphinx alignment"
    EDGES = "Silero edges, in proportion to letters"
    TEXT = "text events, in proportion to letters"


@dataclasses.dataclass(frozen=True)
class Heard:
    """A word and how it got its times."""

    word: Word
    path: Path


def spread(texts: Sequence[str], spans: Sequence[Span]) -> list[Word]:
    """Words over the time that spans cover, in proportion to their letters, pauses left out.

    Args:
        texts: the words.
        spans: at least one, in order, apart from each other.

    Raises:
        ValueError: words but no span.
    """
    if texts and not spans:
        raise ValueError(f"texts={list(texts)} need at least one span, got spans=[]")
    sizes = [max(1, len(text)) for text in texts]
    total, seconds, done, result = sum(sizes), covered(spans), 0, []
    for text, size in zip(texts, sizes, strict=True):
        start = _after(spans, seconds * done / total, from_start=True)
        done += size
        result.append(Word(text, start, _after(spans, seconds * done / total, from_start=False)))
    return result


def _after(spans: Sequence[Span], seconds: float, *, from_start: bool) -> float:
    """When so many seconds of the spans have passed; at a border the next span's start or not."""
    for start, end in spans:
        left = seconds - (end - start)
        if left < -1e-9 or (left <= 1e-9 and not from_start):
            return start + seconds
        seconds = max(0.0, left)
    return spans[-1][1]


class FromText:
    """Ears that believe a system's own `say` text.

    The words of a text event begin in the audible stretch in which it comes, or, if none plays
    then, in the next one that begins within `patience` seconds. They fill as many stretches as
    leave each word `per_word` seconds, at least one, but none after the next event's start.
    Where no sound follows they begin at the event and take `per_word` seconds each; `speech` is
    sound alone where a run has any, so such words lie outside of it.
    """

    name = "the system's own text, times from its audible sound"

    def __init__(self, *, patience: float = 1.0, per_word: float = 0.3):
        if patience < 0 or per_word <= 0:
            raise ValueError(f"patience={patience} must be >= 0 and per_word={per_word} > 0")
        self._patience, self._per_word = patience, per_word

    def words(self, run: Run, clock: Clock) -> list[Word]:
        """Its words in order of time."""
        sounding = audible(run.waveform(clock)) if run.of(Kind.AUDIO) else []
        starts: dict[float, list[str]] = collections.defaultdict(list)
        for event in run.of(Kind.TEXT):
            if event.payload["channel"] == "say" and event.payload["text"].split():
                starts[self._start(event.at(clock), sounding)] += event.payload["text"].split()
        times = sorted(starts)
        result: list[Word] = []
        for index, start in enumerate(times):
            following = times[index + 1] if index + 1 < len(times) else np.inf
            result += spread(starts[start], self._room(start, following, starts[start], sounding))
        return result

    def speech(self, run: Run, clock: Clock) -> list[Span]:
        """Its audible stretches; of a run without sound, the times of its words."""
        if run.of(Kind.AUDIO):
            return audible(run.waveform(clock))
        return merge(((w.start, w.end) for w in self.words(run, clock)), gap=self._per_word)

    def _start(self, time: float, sounding: Sequence[Span]) -> float:
        for start, end in sounding:
            if end > time:
                return max(time, start) if start <= time + self._patience else time
        return time

    def _room(
        self, start: float, following: float, texts: Sequence[str], sounding: Sequence[Span]
    ) -> list[Span]:
        """Where the words lie that begin at `start`."""
        wanted = self._per_word * len(texts)
        room: list[Span] = []
        for begin, end in sounding:
            if (
                end > start
                and begin < following
                and covered(room) < wanted
                and (room or begin <= start)
            ):
                room.append((max(begin, start), min(end, following)))
        return room or [(start, min(start + wanted, following))]


def audible(
    wave: np.ndarray, *, below_peak: float = 35.0, floor: float = 1e-3, gap: float = 0.25
) -> list[Span]:
    """Where a recording is not silent, 10 ms at a time; short gaps are closed.

    Args:
        wave: float32 ``[W]`` at 16 kHz.
        below_peak: dB below the loudest 10 ms that still count.
        floor: root mean square that counts at least.
        gap: seconds of silence inside speech.
    """
    frame = SAMPLE_RATE // 100
    padded = np.pad(np.asarray(wave, np.float32), (0, -len(wave) % frame))
    levels = np.sqrt(np.mean(padded.reshape(-1, frame) ** 2, axis=1))
    if not len(levels) or levels.max() < floor:
        return []
    loud = np.flatnonzero(levels >= max(floor, levels.max() * 10 ** (-below_peak / 20)))
    return merge(((int(i) / 100, (int(i) + 1) / 100) for i in loud), gap=gap)


@dataclasses.dataclass(frozen=True)
class _Utterance:
    """A stretch of talk of one recording: its spans of speech and how far it reaches around."""

    recording: int
    spans: tuple[Span, ...]
    around: Span

    @property
    def edges(self) -> Span:
        return self.spans[0][0], self.spans[-1][1]


class TwoPass:
    """Ears that listen: speech segments, then text, then times of the words.

    What was heard in a recording is kept on disk under the hash of its samples, so a second
    scoring costs nothing.

    Args:
        cache: folder of what was heard; default ``INTERACTION_CACHE/ears``.
        threads: of the recogniser.

    Raises:
        ImportError: the `eval` extra is missing.
    """

    name = "Silero segments, Whisper-base text, PocketSphinx word times"
    _MARGIN = 0.5
    _PAUSE = 0.7  # longer parts utterances
    _LONGEST = 20.0
    _BATCH = 8  # recordings between two writings to disk: what a kill may cost
    _TOLERANCE = 0.3  # alignment may differ by so much from Silero at an utterance's edge

    def __init__(self, cache: pathlib.Path | None = None, *, threads: int = 1):
        self._cache = cache or whisper.cache_folder("ears")
        self._cache.mkdir(parents=True, exist_ok=True)
        self._threads = threads
        self._heard: dict[str, tuple[list[Span], list[Heard]]] = {}
        self._recipe = json.dumps(["two-pass 1", *_versions()])

    def words(self, run: Run, clock: Clock) -> list[Word]:
        """Its words in order of time."""
        return [heard.word for heard in self.heard(run, clock)]

    def speech(self, run: Run, clock: Clock) -> list[Span]:
        """Its stretches of speech: Silero's, unpadded."""
        return list(self._listen([run.waveform(clock)])[0][0])

    def heard(self, run: Run, clock: Clock) -> list[Heard]:
        """Its words with the way each got its times."""
        return list(self._listen([run.waveform(clock)])[0][1])

    def listen(self, wave: np.ndarray) -> tuple[list[Span], list[Heard]]:
        """Stretches of speech and words of float32 ``[W]`` at 16 kHz."""
        return self._listen([wave])[0]

    def prepare(self, runs: Iterable[Run], clock: Clock) -> None:
        """Listens to many runs at once, which is faster: short ones share a call of Whisper."""
        self._listen([run.waveform(clock) for run in runs])

    def paths(self) -> dict[Path, int]:
        """How many words of all that was heard got their times in which way."""
        counts = collections.Counter(h.path for _, all_ in self._heard.values() for h in all_)
        return {path: counts[path] for path in Path}

    def _listen(self, waves: Sequence[np.ndarray]) -> list[tuple[list[Span], list[Heard]]]:
        keys = [self._key(wave) for wave in waves]
        missing = {k: wave for k, wave in zip(keys, waves, strict=True) if not self._load(k)}
        while missing:
            batch = {key: missing.pop(key) for key in list(missing)[: self._BATCH]}
            spans = [silero.speech_segments(wave) for wave in batch.values()]
            heard = self._hear(list(batch.values()), spans)
            for key, found, words in zip(batch, spans, heard, strict=True):
                self._heard[key] = found, words
                self._save(key)
        return [self._heard[key] for key in keys]

    def _hear(
        self, waves: Sequence[np.ndarray], spans: Sequence[Sequence[Span]]
    ) -> list[list[Heard]]:
        utterances = [
            utterance
            for index, (wave, found) in enumerate(zip(waves, spans, strict=True))
            for utterance in self._utterances(index, found, len(wave) / SAMPLE_RATE)
        ]
        clips = [_cut(waves[u.recording], u.around) for u in utterances]
        texts = whisper.hear(clips, threads=self._threads)
        heard: list[list[Heard]] = [[] for _ in waves]
        for utterance, clip, text in zip(utterances, clips, texts, strict=True):
            times = self._times(utterance, clip, text)
            if times is None and text:  # its pack may have given it a neighbour's words
                text = whisper.hear([clip], threads=self._threads)[0]
                times = self._times(utterance, clip, text)
            path = Path.EDGES if times is None else Path.ALIGNED
            words = times or spread(text, utterance.spans)
            heard[utterance.recording] += [Heard(word, path) for word in words]
        return heard

    def _utterances(
        self, recording: int, spans: Sequence[Span], seconds: float
    ) -> list[_Utterance]:
        groups: list[list[Span]] = []
        for span in spans:
            near = groups and span[0] - groups[-1][-1][1] <= self._PAUSE
            if near and span[1] - groups[-1][0][0] <= self._LONGEST:
                groups[-1].append(span)
            else:
                groups.append([span])
        result = []
        for index, group in enumerate(groups):
            start, end = group[0][0], group[-1][1]
            before = (groups[index - 1][-1][1] + start) / 2 if index else 0.0
            last = index + 1 == len(groups)
            after = seconds if last else (end + groups[index + 1][0][0]) / 2
            around = (max(before, start - self._MARGIN), min(after, end + self._MARGIN))
            result.append(_Utterance(recording, tuple(group), around))
        return result

    def _times(
        self, utterance: _Utterance, clip: np.ndarray, text: Sequence[str]
    ) -> list[Word] | None:
        """Aligned words in the recording's time; None where the alignment cannot be trusted."""
        spans = word_alignment.align(clip, text)
        if not spans:
            return None
        offset = utterance.around[0]
        start, end = spans[0][0] + offset, spans[-1][1] + offset
        edges = utterance.edges
        if max(abs(start - edges[0]), abs(end - edges[1])) > self._TOLERANCE:
            return None
        return [Word(t, s[0] + offset, s[1] + offset) for t, s in zip(text, spans, strict=True)]

    def _key(self, wave: np.ndarray) -> str:
        pcm = np.round(np.clip(wave, -1, 1) * 32_767).astype("<i2")
        return hashlib.sha256(self._recipe.encode() + pcm.tobytes()).hexdigest()

    def _load(self, key: str) -> bool:
        file = self._cache / f"{key}.json"
        if key not in self._heard and file.exists():
            kept = json.loads(file.read_text())
            words = [Heard(Word(t, s, e), Path[p]) for t, s, e, p in kept["words"]]
            self._heard[key] = [(s, e) for s, e in kept["speech"]], words
        return key in self._heard

    def _save(self, key: str) -> None:
        speech, heard = self._heard[key]
        words = [(h.word.text, h.word.start, h.word.end, h.path.name) for h in heard]
        with tempfile.NamedTemporaryFile("w", dir=self._cache, delete=False) as file:
            json.dump({"speech": speech, "words": words}, file)
        os.replace(file.name, self._cache / f"{key}.json")


def _versions() -> list[str]:
    """Releases of what the ears are made of: another one hears anew.

    Raises:
        ImportError: the `eval` extra is missing.
    """
    try:
        return [importlib.metadata.version(p) for p in ("faster-whisper", "pocketsphinx")]
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            f"package {error.name!r} is not installed; it comes with the extra 'eval': "
            "pip install 'interaction[eval]'"
        ) from error


def _cut(wave: np.ndarray, span: Span) -> np.ndarray:
    return wave[round(span[0] * SAMPLE_RATE) : round(span[1] * SAMPLE_RATE)]
