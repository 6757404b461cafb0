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

# Digital silence between sounds that are heard apart: longer than `TwoPass._PAUSE`, and than what
# two utterances take of it on either side.
_APART = 1.0
_EDGE = 0.5  # seconds of it that stay with each sound


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
    leave each word `per_word` seconds, at least one, but none after the next event's start; no word
    takes more than `_LONGEST` times that, so that sound which goes on without text stretches none.
    Where no sound follows they begin at the event and take `per_word` seconds each; `speech` is
    sound alone where a run has any, so such words lie outside of it.
    """

    name = "the system's own text, times from its audible sound"
    _LONGEST = 3.0

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
        left = self._LONGEST * wanted
        for index, (begin, end) in enumerate(room):
            room[index] = (begin, min(end, begin + max(0.0, left)))
            left -= end - begin
        room = [span for span in room if span[1] > span[0]]
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


def sounds_apart(wave: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Parts of a recording with `_APART` seconds of digital silence between them.

    Whatever such parts are heard as does not depend on where they lie, so that a sound which is
    put out twice, or under either clock, is heard once. A recording with any noise in it is one.

    Args:
        wave: float32 ``[W]`` at 16 kHz.

    Returns:
        First sample, and samples with up to `_EDGE` seconds of the silence around them.
    """
    sounding = np.flatnonzero(wave)
    if not len(sounding):
        return []
    breaks = np.flatnonzero(np.diff(sounding) > round(_APART * SAMPLE_RATE))
    starts = [sounding[0], *sounding[breaks + 1]]
    ends = [*sounding[breaks], sounding[-1]]
    edge = round(_EDGE * SAMPLE_RATE)
    places = [
        (max(0, int(start) - edge), int(end) + 1 + edge)
        for start, end in zip(starts, ends, strict=True)
    ]
    return [(start, wave[start:stop]) for start, stop in places]


class TwoPass:
    """Ears that listen: speech segments, then text, then times of the words.

    What a sound was heard as is kept on disk under the hash of its samples, so a second scoring
    costs nothing, nor does the same sound at another time.

    Args:
        cache: folder of what was heard; default ``INTERACTION_CACHE/ears``.
        threads: of the recogniser.

    Raises:
        ImportError: the `eval` extra is missing.
    """

    name = "Silero segments, Whisper-base text, PocketSphinx word times"
    is_silero = True
    _MARGIN = 0.5
    _PAUSE = 0.7  # longer parts utterances
    _LONGEST = 20.0
    _BATCH = 24  # sounds between two writings to disk: what a kill may cost
    _TOLERANCE = 0.3  # alignment may differ by so much from Silero at an utterance's edge

    def __init__(self, cache: pathlib.Path | None = None, *, threads: int = 1):
        self._cache = cache or whisper.cache_folder("ears")
        self._cache.mkdir(parents=True, exist_ok=True)
        self._threads = threads
        self._segments: dict[str, list[Span]] = {}
        self._heard: dict[str, list[Heard]] = {}
        self._recipe = json.dumps(["two-pass 1", *_versions()])

    def words(self, run: Run, clock: Clock) -> list[Word]:
        """Its words in order of time."""
        return [heard.word for heard in self.heard(run, clock)]

    def speech(self, run: Run, clock: Clock) -> list[Span]:
        """Its stretches of speech: Silero's, unpadded. Nothing is written down for it."""
        return self._speech(run.waveform(clock))

    def heard(self, run: Run, clock: Clock) -> list[Heard]:
        """Its words with the way each got its times."""
        return self._words(run.waveform(clock))

    def listen(self, wave: np.ndarray) -> tuple[list[Span], list[Heard]]:
        """Stretches of speech and words of float32 ``[W]`` at 16 kHz."""
        return self._speech(wave), self._words(wave)

    def prepare(self, runs: Iterable[Run], clocks: Sequence[Clock]) -> None:
        """Listens to many runs at once, which is faster: short sounds share a call of Whisper."""
        waves = [run.waveform(clock) for run in runs for clock in clocks]
        self._listen([sound for wave in waves for _, sound in sounds_apart(wave)])

    def _speech(self, wave: np.ndarray) -> list[Span]:
        result: list[Span] = []
        for start, sound in sounds_apart(wave):
            at, found = start / SAMPLE_RATE, self._spans(self._key(sound), sound)
            result += [(begin + at, end + at) for begin, end in found]
        return result

    def _words(self, wave: np.ndarray) -> list[Heard]:
        parts = sounds_apart(wave)
        self._listen([sound for _, sound in parts])
        result: list[Heard] = []
        for start, sound in parts:
            at = start / SAMPLE_RATE
            for heard in self._heard[self._key(sound)]:
                word = Word(heard.word.text, heard.word.start + at, heard.word.end + at)
                result.append(Heard(word, heard.path))
        return result

    def paths(self) -> dict[Path, int]:
        """How many words of all that was heard got their times in which way."""
        counts = collections.Counter(h.path for all_ in self._heard.values() for h in all_)
        return {path: counts[path] for path in Path}

    def _spans(self, key: str, sound: np.ndarray) -> list[Span]:
        if key not in self._segments and not self._load(key):
            self._segments[key] = silero.speech_segments(sound)
        return self._segments[key]

    def _listen(self, sounds: Sequence[np.ndarray]) -> None:
        """Hears whatever of this has not been heard yet."""
        keyed = {self._key(sound): sound for sound in sounds}
        missing = {key: sound for key, sound in keyed.items() if not self._load(key)}
        while missing:
            batch = {key: missing.pop(key) for key in list(missing)[: self._BATCH]}
            spans = [self._spans(key, sound) for key, sound in batch.items()]
            heard = self._hear(list(batch.values()), spans)
            for key, words in zip(batch, heard, strict=True):
                self._heard[key] = words
                self._save(key)

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
        for utterance, clip, written in zip(utterances, clips, texts, strict=True):
            text = written.words
            times = self._times(utterance, clip, text)
            if times is None and text and not written.alone:  # it may be a neighbour's
                text = whisper.hear([clip], threads=self._threads)[0].words
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
            self._segments[key], self._heard[key] = [(s, e) for s, e in kept["speech"]], words
        return key in self._heard

    def _save(self, key: str) -> None:
        words = [(h.word.text, h.word.start, h.word.end, h.path.name) for h in self._heard[key]]
        with tempfile.NamedTemporaryFile("w", dir=self._cache, delete=False) as file:
            json.dump({"speech": self._segments[key], "words": words}, file)
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
