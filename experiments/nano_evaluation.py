"""What the checkpoint `interaction-nano` can do, on clips and videos it never met.

Question: how often is it right, how soon, and how often does it answer what was no question?
Command: python -m experiments.nano_evaluation --checkpoint checkpoints/nano
    (extras `voices` and `eval`; INTERACTION_SPOKEN_DIGITS and INTERACTION_MEDIA name the folders)
Cost: about ten minutes on two cores.
Expectation: written digits >= 95 % on unseen takes and >= 80 % on the unseen speaker; spoken
answers >= 85 %; counts >= 80 %; at most one false answer per minute of noise, at most 10 % of
words and sentences answered.
Finding: in `metrics.json` beside the checkpoint.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time

# Several lanes on a CPU: see `interaction/eval/respond.py`. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import numpy as np

from interaction.data.bank import load_bank
from interaction.data.clips import Sound, Split
from interaction.data.config import DataConfig
from interaction.data.digits import HELD_OUT_SPEAKER, HELD_OUT_TAKES
from interaction.data.filmed import films
from interaction.data.speaking import word_chunks
from interaction.data.target_voice import WORDS
from interaction.eval import counting, digits, false_answers
from interaction.eval.intervals import bootstrap, share
from interaction.eval.recognise import NUMBER_WORDS, RECOGNISER, recognise
from interaction.eval.respond import Stimulus, respond, respond_timed
from interaction.eval.table import table
from interaction.models.checkpoint import load_model
from interaction.models.vocoder import vocode

SEED = 20_000


def reference_recordings(params, config) -> dict:
    """How well the recogniser knows the recordings learned from, as mel through the vocoder."""
    right = count = 0
    for word in NUMBER_WORDS:
        for mel in word_chunks()[word]:
            silence = np.full((16, mel.shape[2]), config.mel.silence, np.float32)
            frames = np.concatenate([*mel, silence])[None]
            wave = np.asarray(vocode(params["vocoder"], frames, config.vocoder))[0]
            right += recognise(wave) == word
            count += 1
    return {"reference_recordings_through_vocoder": share(right, count, chance=1 / 11)}


def digits_by_people(bank) -> dict[str, list]:
    """Unseen takes of the training speakers, and the speaker left out."""
    human = bank.select(Split.TEST, Sound.DIGIT, "human")
    return {
        "unseen takes": [
            c
            for c in human
            if c.name.startswith("fsdd/")
            and c.group != HELD_OUT_SPEAKER
            and int(c.name.rsplit("_", 1)[1]) in HELD_OUT_TAKES
        ],
        "unseen speaker": [c for c in human if c.group == HELD_OUT_SPEAKER],
    }


def spoken_digits(play, bank, *, clips: int | None) -> dict:
    """Held-out digits by people, and by voices that were not trained on."""
    voices = bank.select(Split.TEST, Sound.DIGIT, "voice")
    groups = digits_by_people(bank) | {"unseen voices": voices}
    found = {}
    for name, group in groups.items():
        step = max(1, len(group) // clips) if clips else 1
        stimuli = digits.digit_stimuli(group[::step], seed=SEED)
        results = [
            digits.score_digit(s, r, recognise) for s, r in zip(stimuli, play(stimuli), strict=True)
        ]
        found[name] = digits.summarise(results) | {"written by digit": digits.by_digit(results)}
        print(table(_plain(found[name]), title=name), file=sys.stderr)
    return found


def measured_latency(params, config, bank, *, clips: int) -> dict:
    """Latency with every step's time measured, one lane, and the time of the steps."""
    group = [
        c for c in bank.select(Split.TEST, Sound.DIGIT, "human") if c.group != HELD_OUT_SPEAKER
    ]
    chosen = np.random.default_rng(SEED).choice(len(group), min(clips, len(group)), replace=False)
    stimuli = digits.digit_stimuli([group[i] for i in chosen], seed=SEED)
    latencies, steps = [], []
    for stimulus, timed in zip(
        stimuli, respond_timed(params, config, stimuli, seed=SEED), strict=True
    ):
        steps += timed.step_seconds
        for answer in timed.reply.answers():
            if answer.onset is not None:
                start = timed.play_starts[answer.micro_turn]
                latencies.append(start + answer.onset - stimulus.truth.end)
                break
    soon = sum(latency <= digits.GOAL_SECONDS for latency in latencies)
    return {
        "latency_median_seconds": bootstrap(latencies),
        "latency_p90_seconds": bootstrap(latencies, digits.ninetieth),
        "sound_within_0.4_seconds": share(soon, len(stimuli)),
        "step_median_seconds": bootstrap(steps),
        "step_p99_seconds": bootstrap(steps, _ninety_ninth),
    }


def _ninety_ninth(values, axis):
    return np.percentile(values, 99, axis=axis)


def counts(play, *, videos: int) -> dict:
    """Held-out flashes and kicks."""
    found, together = {}, []
    for kind in ("flashes", "kicks"):
        stimuli = counting.video_stimuli(kind, videos, seed=SEED)
        results = [counting.score_count(s, r) for s, r in zip(stimuli, play(stimuli), strict=True)]
        found[kind] = counting.summarise(results)
        found[kind + " by truth"] = {
            str(n): " ".join((r.written[-1] if r.written else "-") for r in results if r.truth == n)
            for n in sorted({r.truth for r in results})
        }
        together += results
    found["all videos"] = counting.summarise(together)
    return found


def silence(play, bank, data, *, minutes: int, at_most: int) -> dict:
    """Noise, speech without digits, and videos in which nothing happens."""
    noise = false_answers.noise_stimuli(bank, minutes=minutes, seed=SEED)
    found = {"noise": {"false_answers_per_minute": false_answers.per_minute(noise, play(noise))}}
    for sound in (Sound.WORD, Sound.SENTENCE):
        for origin in ("human", "voice"):
            clips = false_answers.held_out_speech(bank, sound, origin, at_most=at_most, seed=SEED)
            stimuli = false_answers.speech_stimuli(clips, seed=SEED)
            who = "people" if origin == "human" else "voices"
            share_answered = false_answers.answered_share(play(stimuli))
            found[f"{sound.value}s by {who}"] = {"answered": share_answered}
    still = counting.video_stimuli("still", min(50, at_most), seed=SEED)
    filmed = [
        Stimulus(tubelets=np.asarray(film[:150])) for film in films(data, Split.TEST).values()
    ]
    for name, stimuli in (("still videos", still), ("films", filmed)):
        if stimuli:
            found[name] = {"answered": false_answers.answered_share(play(stimuli))}
    return found


def _plain(value):
    """`Measured` to dictionaries, all the way down."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def main() -> None:
    """Evaluates a checkpoint, writes its metrics and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="checkpoints/nano")
    parser.add_argument("--out", help="default: metrics.json in the checkpoint's folder")
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--clips", type=int, help="of each group of digits; default: all")
    parser.add_argument("--videos", type=int, default=100, help="of each kind")
    parser.add_argument("--minutes", type=int, default=10, help="of noise")
    parser.add_argument("--timed", type=int, default=60, help="clips with measured step time")
    args = parser.parse_args()
    began = time.monotonic()
    params, config = load_model(args.checkpoint)
    data = DataConfig()
    bank = load_bank(data)
    play = functools.partial(respond, params, config, lanes=args.lanes, seed=SEED)
    figures = {
        "digits": spoken_digits(play, bank, clips=args.clips),
        "digits, step time measured": measured_latency(params, config, bank, clips=args.timed),
        "counting": counts(play, videos=args.videos),
        "silence": silence(play, bank, data, minutes=args.minutes, at_most=args.clips or 200),
        "voice": reference_recordings(params, config),
    }
    facts = {
        "seed": SEED,
        "recogniser": RECOGNISER,
        "words_spoken": list(WORDS),
        "held_out": f"takes {min(HELD_OUT_TAKES)}-{max(HELD_OUT_TAKES)} of every speaker, all of "
        f"{HELD_OUT_SPEAKER}; see interaction/data/negatives.py for speech and noise",
        "intervals": "95 %: Wilson for shares, exact Poisson for rates, bootstrap for times",
        "latency": "digit's end (last Silero frame) to first audible sample, in playback time",
        "jax": jax.__version__,
        "seconds": round(time.monotonic() - began),
    }
    out = pathlib.Path(args.out or pathlib.Path(args.checkpoint) / "metrics.json")
    out.write_text(json.dumps({"facts": facts, "figures": _plain(figures)}, indent=1) + "\n")
    print(table(_plain(figures), title=f"{args.checkpoint}, seed {SEED}"))


if __name__ == "__main__":
    main()
