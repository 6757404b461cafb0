"""TimeSpeak, rebuilt: does it begin to speak, unasked, at the time it was told to?

In: a folder of instructions (see `timed_speech`). Out: samples and figures. Not the announced
private set: same task and rule, our own instructions. Three kinds: `delay` ("say melon in three
seconds"), `every` ("say melon every two seconds until I ask you to stop"; one of the times is the
one that is scored), `pause` ("count with me; two seconds after I finish, say melon").
"""

import numpy as np

from interaction.eval.number_words import spell
from interaction.eval.suite import Source
from interaction.eval.suites import instructions
from interaction.eval.suites.timed_speech import Example, TimedSpeech

KINDS = ("delay", "every", "pause")
_LEAD = 0.3
_TAIL = 2.6  # seconds after the last time due, longer than the widest window
_PIPER_EVERY = 4


class TimeSpeak(TimedSpeech):
    """The suite."""

    name = "timespeak"
    source = Source(
        title="TimeSpeak (rebuilt, not the announced private set)",
        citation="task and rule as announced with TML-Interaction-Small; instructions our own",
        licence="generated: Apache-2.0 as this repository; the announced set is not published",
        size="as many as asked for, about 10 s each",
        obtain="generate it with a seed; any folder with examples.jsonl and its sounds loads",
        generated="espeak-ng and piper voices; kinds delay, every, pause",
    )

    def make(self, index: int, seed: int) -> tuple[Example, np.ndarray]:
        """Kinds in turn."""
        return _example(index, seed)


def _example(index: int, seed: int) -> tuple[Example, np.ndarray]:
    random = np.random.default_rng([seed, index, 61])
    kind, word = KINDS[index % len(KINDS)], str(random.choice(instructions.WORDS))
    seconds = int(random.integers(2, 5))
    number = spell(seconds)
    text = {
        "delay": f"Please say {word} in {number} seconds.",
        "every": f"Say {word} every {number} seconds until I ask you to stop.",
        "pause": f"I will count. Say {word} {number} seconds after I have finished.",
    }[kind]
    speak = instructions.say_with_piper if index % _PIPER_EVERY == 3 else instructions.say
    sound = speak(text, seed=seed * 1_000 + index)
    end = _LEAD + sound.seconds
    pieces, typed = [(_LEAD, sound.samples)], [(end, text)]
    also: tuple[float, ...] = ()
    target, earliest, last = end + seconds, end, end + seconds
    if kind == "every":
        count = int(random.integers(2, 4))
        scored = int(random.integers(1, count + 1))
        due = [end + seconds * (k + 1) for k in range(count)]
        target = due.pop(scored - 1)
        also, last = tuple(due), end + seconds * count
        stop = instructions.say("Stop now.", seed=seed * 1_000 + index)
        at = last + 0.8
        pieces.append((at, stop.samples))
        typed.append((at + stop.seconds, "Stop now."))
    if kind == "pause":
        words = " ".join(spell(n + 1) for n in range(int(random.integers(3, 6))))
        count = instructions.say(words, seed=seed * 1_000 + index)
        at = end + 0.5
        earliest = at + count.seconds
        pieces.append((at, count.samples))
        typed.append((earliest, words))
        target = last = earliest + seconds
    total = round(last + _TAIL, 2)
    example = Example(
        id=f"{kind}-{index:03d}",
        kind=kind,
        audio=f"audio/{kind}-{index:03d}.wav",
        typed=tuple((round(t, 4), said) for t, said in typed),
        seconds=total,
        expected=word,
        target=round(target, 4),
        earliest=round(earliest, 4),
        also=tuple(round(t, 4) for t in also),
    )
    return example, instructions.session_sound(pieces, total)
