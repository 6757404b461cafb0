"""A quick look at a model while it trains: about a minute on one core.

In: parameters. Out: a few shares and one score in 0..1. It plays *training* clips in sessions that
training never made and rendered videos of the training split: it says when the skill is there and
which checkpoint is best, and leaves the held-out clips untouched for the final evaluation.
"""

import numpy as np

from interaction.data.bank import load_bank
from interaction.data.clips import Sound, Split
from interaction.data.config import DataConfig
from interaction.eval import counting, digits, false_answers
from interaction.eval.respond import respond
from interaction.models.config import InteractionConfig


def quick_validation(
    params: dict,
    config: InteractionConfig,
    data: DataConfig | None = None,
    *,
    lanes: int = 1,
    seed: int = 1,
) -> dict[str, float]:
    """Shares over a few dozen sessions, `lanes` at a time (see `eval.respond` before raising it).

    Returns:
        ``digits`` written right, ``counts`` exact, ``silent`` clips of other speech that were not
        answered, ``noise`` false answers per minute, and ``score``, the mean of the first three.
    """
    bank = load_bank(data or DataConfig())
    random = np.random.default_rng(seed)

    def some(clips, count):
        return [clips[i] for i in random.choice(len(clips), min(count, len(clips)), replace=False)]

    spoken = digits.digit_stimuli(
        some(bank.select(Split.TRAIN, Sound.DIGIT, "human"), 32), seed=seed
    )
    speech = [
        clip
        for sound in (Sound.WORD, Sound.SENTENCE)
        for clip in some(bank.select(Split.TRAIN, sound, "human"), 16)
    ]
    others = false_answers.speech_stimuli(speech, seed=seed)
    seen = [
        stimulus
        for kind in ("flashes", "kicks")
        for stimulus in counting.video_stimuli(kind, 12, seed=100 + seed, split=Split.TRAIN)
    ]
    noise = false_answers.noise_stimuli(bank, minutes=1, seed=seed, split=Split.TRAIN)
    replies = respond(params, config, [*spoken, *others], lanes=lanes, seed=seed)
    heard, quiet = replies[: len(spoken)], replies[len(spoken) :]
    scored = [digits.score_digit(s, r, lambda _: None) for s, r in zip(spoken, heard, strict=True)]
    counted = [
        counting.score_count(s, r)
        for s, r in zip(seen, respond(params, config, seen, lanes=lanes, seed=seed), strict=True)
    ]
    figures = {
        "digits": float(np.mean([r.right for r in scored])),
        "counts": float(np.mean([r.exact for r in counted])),
        "silent": 1.0 - false_answers.answered_share(quiet).value,
        "noise": false_answers.per_minute(noise, respond(params, config, noise, lanes=lanes)).value,
    }
    return figures | {"score": float(np.mean([figures[k] for k in ("digits", "counts", "silent")]))}
