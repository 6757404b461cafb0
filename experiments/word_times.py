"""How exact are word times, and does the second pass pay?

Question: how far from the truth are the times of words in a system's speech, by Whisper-base's own
word times and by the two passes of `interaction.eval.ears.TwoPass`?
Command: python experiments/word_times.py
Cost: some minutes on one CPU core; extras `voices` and `eval`.
Expectation: Whisper's first word is early by about 0.4 s after silence; two passes stay below
0.08 s at the median.
Finding: in word_times.json beside this file; `tests/test_ears.py` holds the two claims.
"""

import argparse
import collections
import json
import pathlib
import tempfile
import time

import numpy as np

from interaction.eval import whisper
from interaction.eval.ears import TwoPass
from interaction.eval.records import Clock
from interaction.eval.suite import Word
from interaction.eval.word_time_truth import VOICES, TruthClip, errors_of, truth_clips

HERE = pathlib.Path(__file__).parent


def row(errors: list) -> dict:
    """Figures over utterances, seconds."""
    onsets = np.array([e.onset for e in errors if not np.isnan(e.onset)])
    starts = np.abs([value for e in errors for value in e.starts])
    ends = np.abs([value for e in errors for value in e.ends])
    figures = {
        "first_word_onset_median_signed": np.median(onsets),
        "first_word_onset_median_abs": np.median(np.abs(onsets)),
        "first_word_onset_p90_abs": np.percentile(np.abs(onsets), 90),
        "first_word_onset_max_abs": np.abs(onsets).max(),
        "word_start_median_abs": np.median(starts),
        "word_start_p90_abs": np.percentile(starts, 90),
        "word_end_median_abs": np.median(ends),
        "word_end_p90_abs": np.percentile(ends, 90),
        "words_understood_share": sum(e.understood for e in errors) / sum(e.words for e in errors),
    }
    counts = {"utterances": len(errors), "unheard": len(errors) - len(onsets)}
    return counts | {name: round(float(value), 4) for name, value in figures.items()}


def table(clips: list[TruthClip], heard: list[list[Word]]) -> dict:
    """`row` for every voice and for all."""
    errors = collections.defaultdict(list)
    for clip, words in zip(clips, heard, strict=True):
        errors[clip.voice].append(errors_of(clip, words))
        errors["all"].append(errors[clip.voice][-1])
    return {voice: row(found) for voice, found in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "word_times.json")
    options = parser.parse_args()
    clips = truth_clips()
    with tempfile.TemporaryDirectory() as folder:
        ears = TwoPass(pathlib.Path(folder))
        begin = time.perf_counter()
        ears.prepare([clip.run for clip in clips], [Clock.INSTANT])
        seconds = time.perf_counter() - begin
        two_pass = [ears.words(clip.run, Clock.INSTANT) for clip in clips]
        paths = ears.paths()
        begin = time.perf_counter()
        again = TwoPass(pathlib.Path(folder))
        again.prepare([clip.run for clip in clips], [Clock.INSTANT])
        second = time.perf_counter() - begin
    begin = time.perf_counter()
    own = [[Word(w.text, w.start, w.end) for w in whisper.timed_words(clip.wave)] for clip in clips]
    alone = time.perf_counter() - begin
    total = sum(paths.values())
    result = {
        "voices": list(VOICES),
        "leading_near_silence_seconds": [1.2, 5.0],
        "audio_seconds": round(sum(clip.run.seconds for clip in clips), 1),
        "two_pass": table(clips, two_pass),
        "two_pass_share_of_words_per_path": {
            p.value: round(n / total, 4) for p, n in paths.items()
        },
        "whisper_own_word_times": table(clips, own),
        "seconds": {
            "two_pass": round(seconds, 1),
            "two_pass_from_cache": round(second, 3),
            "whisper_own": round(alone, 1),
        },
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
