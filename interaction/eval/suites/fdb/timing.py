"""The arithmetic of who speaks when, shared by every version of Full-Duplex-Bench.

In: stretches of speech and words with times in seconds. Out: merged stretches, overlaps, response
gaps, takeovers. Pure functions. The constants are those of the authors' code (github.com/
DanielLin94144/Full-Duplex-Bench, `evaluation/get_timing.py` and `eval_*.py`, 2026-04), where
comments and constants differ the constants.
"""

import math
from collections.abc import Sequence

from interaction.eval.suite import Word

USER_MERGE_GAP = 0.6
MODEL_MERGE_GAP = 0.5
TURN_SECONDS = 1.0
TURN_WORDS = 3
# Defaults of `silero_vad.get_speech_timestamps`, which the authors' code calls without options.
SHORTEST_SPEECH = 0.25
SPEECH_PADDING = 0.03

Stretch = tuple[float, float]


def merged(stretches: Sequence[Stretch], gap: float) -> list[Stretch]:
    """Joins stretches whose distance is at most `gap` seconds."""
    result: list[Stretch] = []
    for start, end in sorted(stretches):
        if result and start - result[-1][1] <= gap:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result


def as_silero_cuts(stretches: Sequence[Stretch], seconds: float) -> list[Stretch]:
    """Unpadded stretches of Silero's network as the package gives them by default.

    What is not longer than 250 ms is left out; 30 ms are put before and after each of the others,
    half of the silence between where two are nearer than 60 ms.

    Args:
        stretches: in order.
        seconds: length of the recording.
    """
    kept = [(start, end) for start, end in stretches if end - start > SHORTEST_SPEECH]
    result = []
    for index, (start, end) in enumerate(kept):
        before = (start - kept[index - 1][1]) / 2 if index else math.inf
        after = (kept[index + 1][0] - end) / 2 if index + 1 < len(kept) else math.inf
        first = max(0.0, start - min(SPEECH_PADDING, before))
        result.append((first, min(seconds, end + min(SPEECH_PADDING, after))))
    return result


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def overlaps(user: Sequence[Stretch], model: Sequence[Stretch]) -> list[Stretch]:
    """Where both speak: the stop latencies of v1.5, each as (start, end) rounded to 1 ms.

    Both lists must be in order and free of overlaps (see `merged`). Of overlaps that end in the
    same millisecond the shortest is kept.
    """
    shortest: dict[int, Stretch] = {}
    i = j = 0
    while i < len(user) and j < len(model):
        start, end = max(user[i][0], model[j][0]), min(user[i][1], model[j][1])
        if end > start:
            key = _milliseconds(end)
            held = shortest.get(key)
            if held is None or end - start < held[1] - held[0]:
                shortest[key] = (start, end)
        if user[i][1] < model[j][1]:
            i += 1
        else:
            j += 1
    in_order = sorted(shortest.values(), key=lambda stretch: stretch[1])
    return [(round(start, 3), round(end, 3)) for start, end in in_order]


def response_gaps(user: Sequence[Stretch], model: Sequence[Stretch]) -> list[Stretch]:
    """(end of the user's speech, next start of the model's), rounded to 1 ms.

    Of several user ends before one model start the latest is kept; a start at the very moment of
    the end does not count as next.
    """
    gaps: dict[int, Stretch] = {}
    for _, end in user:
        start = next((begin for begin, _ in model if begin > end), None)
        if start is None:
            continue
        key, gap = _milliseconds(start), (round(end, 3), round(start, 3))
        if key not in gaps or gap[0] > gaps[key][0]:
            gaps[key] = gap
    return sorted(gaps.values(), key=lambda gap: gap[1])


def takes_turn(words: Sequence[Word]) -> bool:
    """Whether these words are a turn, not silence or a backchannel.

    A turn lasts 1 s or more from the first word's start to the last word's end, or has more than
    3 words. A last word without an end (nan) counts up to its start.
    """
    if not words:
        return False
    last = words[-1].start if math.isnan(words[-1].end) else words[-1].end
    return last - words[0].start >= TURN_SECONDS or len(words) > TURN_WORDS


def stretches_of(words: Sequence[Word], gap: float = MODEL_MERGE_GAP) -> list[list[Word]]:
    """Words in groups; a silence of more than `gap` seconds begins a new one."""
    groups: list[list[Word]] = []
    for word in words:
        if groups and word.start - _end(groups[-1][-1]) <= gap:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _end(word: Word) -> float:
    return word.start if math.isnan(word.end) else word.end


def speaking_at(stretches: Sequence[Stretch], time: float) -> Stretch | None:
    """The stretch that covers `time`, its start included and its end not."""
    return next((stretch for stretch in stretches if stretch[0] <= time < stretch[1]), None)


def words_after(words: Sequence[Word], time: float) -> list[Word]:
    """Words that start at `time` or later."""
    return [word for word in words if word.start >= time]


def after_yielding(words: Sequence[Word], time: float) -> list[Word]:
    """Words said after `time` by an agent that had stopped: talk that ran across it is left out.

    Talk runs across `time` if one of its words starts before and a word starts or ends after it,
    with no silence of more than `MODEL_MERGE_GAP` between.
    """
    result: list[Word] = []
    for group in stretches_of(words):
        if group[0].start >= time:
            result += group
    return result
