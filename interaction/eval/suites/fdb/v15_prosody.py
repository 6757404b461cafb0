"""Full-Duplex-Bench v1.5: how the voice changes with the overlap.

In: a run's sound and words, the overlap's end. Out: speaking rate, pitch and loudness before and
after it. The definitions are those of the authors' `eval_general_before_after.py` (2026-04) with
the settings of their `evaluate.py`: the recording is split at the overlap's end, moved to a word's
start; either part is cut down to its speech (Silero, at least 60 ms, parted by 50 ms of silence);
pitch is Praat's (10 ms, 50 to 600 Hz, voiced frames), loudness Praat's intensity in dB. COMPAT
averages each side over all recordings, a twentieth at either end left out, with its traps: a side
without words speaks at 0 words per minute, one without voice is 0 Hz high. STRICT leaves those out
and gives what the authors' paired t-test asks about: the difference after minus before, of the
recordings in which the agent responded.

Their UTMOSv2 (quality, by a network whose weights come from a hub) is not here. Where Praat finds
no loudness (digital silence, less than 64 ms) they fall back to other packages on another scale;
here such a side is left out.
"""

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.data.voices import require
from interaction.eval import speech_segments as silero
from interaction.eval.board import Board
from interaction.eval.intervals import bootstrap
from interaction.eval.records import SAMPLE_RATE, Run, Sample
from interaction.eval.suite import Better, Hearing, Mode, Word

SPEECH = silero.Detection(threshold=0.5, shortest=0.06, silence=0.05, padding=0.03)
STEP, FLOOR, CEILING = 0.01, 50.0, 600.0
SILENCE = -200.0  # dB: what lies below is Praat's word for nothing
TRIMMED = 5.0  # per cent at either end
FEWEST = 3  # values of which some are left out


class Prosody(enum.Enum):
    """How much is measured: RATE needs words alone, PRAAT the extra `prosody` (GPL-3)."""

    RATE = "rate"
    PRAAT = "praat"


NAMES = {
    "rate": "speaking rate{} (words/min)",
    "pitch": "pitch{}, mean (Hz)",
    "pitch_spread": "pitch{}, standard deviation (Hz)",
    "loudness": "loudness{}, mean (dB)",
    "loudness_spread": "loudness{}, standard deviation (dB)",
}


@dataclasses.dataclass(frozen=True)
class Sides:
    """What was measured of one recording, by the names of `NAMES`; nan where there was nothing."""

    before: Mapping[str, float]
    after: Mapping[str, float]


def split_time(words: Sequence[Word], end: float) -> float:
    """Where the recording is split: the start of the word that sounds at the overlap's end, or of
    the next one; the last word's end if none follows; the overlap's end if there is no word."""
    for word in words:
        if end < word.end:
            return word.start
    return words[-1].end if words else end


def words_per_minute(words: Sequence[Word]) -> float:
    """Words over the time from the first one's start to the last one's end; 0 without time."""
    seconds = words[-1].end - words[0].start if words else 0.0
    return 60.0 * len(words) / seconds if seconds > 0 else 0.0


def voice(wave: np.ndarray) -> dict[str, float]:
    """Pitch and loudness of the speech in float32 ``[W]`` at 16 kHz; pitch is 0 without any voice.

    Raises:
        ImportError: the `prosody` or the `eval` extra is missing.
    """
    praat = require("parselmouth", "prosody")
    spans = silero.speech_segments(wave, SPEECH) or [(0.0, len(wave) / SAMPLE_RATE)]
    parts = [wave[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in spans]
    sound = praat.Sound(np.concatenate(parts).astype(np.float64), sampling_frequency=SAMPLE_RATE)
    found: dict[str, float] = {"pitch": 0.0, "pitch_spread": 0.0}
    found |= {"loudness": math.nan, "loudness_spread": math.nan}
    if sound.duration >= 3 / FLOOR:
        heard = sound.to_pitch(time_step=STEP, pitch_floor=FLOOR, pitch_ceiling=CEILING)
        frames = heard.selected_array["frequency"]
        found |= _moments("pitch", frames[(frames > 0) & (frames <= CEILING)])
    if sound.duration >= 6.4 / 100:
        levels = sound.to_intensity(time_step=STEP).values.ravel()
        found |= _moments("loudness", levels[levels > SILENCE])
    return found


def _moments(name: str, values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {name: float(np.mean(values)), f"{name}_spread": spread}


def sides(sample: Sample, run: Run, how: Hearing, prosody: Prosody) -> Sides:
    """Both sides of one recording."""
    words = [word for word in how.words(run) if not math.isnan(word.end)]
    wave = run.waveform(how.clock)
    split = split_time(words, sample.truth["overlap"][1])
    split = max(0.0, min(len(wave) / SAMPLE_RATE, split))
    place = round(split * SAMPLE_RATE)
    spoken = [w for w in words if w.end <= split], [w for w in words if w.end > split]
    found = []
    for said, part in zip(spoken, (wave[:place], wave[place:]), strict=True):
        side = {"rate": words_per_minute(said)} if len(part) else {}
        if prosody is Prosody.PRAAT and len(part):
            side |= voice(part)
        found.append(side)
    return Sides(*found)


def trimmed_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of what lies between the 5th and the 95th percentile; of fewer than three, of all."""
    if values.shape[axis] < FEWEST:
        return np.mean(values, axis=axis)
    low, high = np.percentile(values, [TRIMMED, 100 - TRIMMED], axis=axis, keepdims=True)
    kept = (values >= low) & (values <= high)
    return np.sum(values * kept, axis=axis) / np.sum(kept, axis=axis)


def score(board: Board, scene: str, measured: Mapping[str, Sides], responded: set[str]) -> None:
    """Adds the rows of one scene: COMPAT each side, STRICT the difference where it responded.

    Args:
        board: gets the rows.
        scene: of the recordings.
        measured: both sides by recording.
        responded: recordings whose behaviour was to respond.
    """
    there = {key for both in measured.values() for key in (*both.before, *both.after)}
    for key, name in NAMES.items():
        if key not in there:
            continue
        before, after = (
            {i: getattr(both, side).get(key, math.nan) for i, both in measured.items()}
            for side in ("before", "after")
        )
        if board.mode is Mode.COMPAT:
            for side, values in (("before", before), ("after", after)):
                known = {i: v for i, v in values.items() if not math.isnan(v)}
                title = name.format(f" {side} the overlap's end")
                figure = bootstrap(list(known.values()), trimmed_mean)
                board.add(scene, title, figure, known, Better.NEITHER)
            continue
        voiced = [i for i in measured if i in responded and _in_both(measured[i], key)]
        if voiced:
            title = name.format(", after minus before, where it responded")
            board.mean(scene, title, {i: after[i] - before[i] for i in voiced}, Better.NEITHER)


def _in_both(measured: Sides, key: str) -> bool:
    """Whether either side had something to measure: words for a rate, voice for a pitch."""
    ruler = "pitch" if key == "pitch_spread" else key
    values = [side.get(ruler, math.nan) for side in (measured.before, measured.after)]
    silent = 0.0 if ruler in ("rate", "pitch") else math.nan
    return not any(math.isnan(value) or value == silent for value in values)
