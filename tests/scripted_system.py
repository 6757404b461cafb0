"""A system that puts out what it is told, and a clock that ticks as told.

In: for each micro-turn its output events and how long the step took. Out: `Scripted`, a system.
"""

import numpy as np

from interaction.eval.records import SAMPLE_RATE, STOP_PLAYBACK, Kind, OutputEvent


class Scripted:
    """Puts out what it is told in each step; `clock` says how long each step took."""

    name = "scripted"

    def __init__(self, script, seconds=()):
        self.script, self.seconds, self.closed, self.given = script, dict(seconds), 0, []
        self.now = 0.0

    def converse(self, sample):
        return self

    def step(self, given):
        self.given.append(given)
        self.now += self.seconds.get(given.micro_turn, 0.0)
        return self.script.get(given.micro_turn, [])

    def close(self):
        self.closed += 1

    def timer(self):
        return self.now


def sound(t, seconds=0.2, level=0.25):
    return OutputEvent(t, Kind.AUDIO, np.full(round(seconds * SAMPLE_RATE), level, np.float32))


def text(t, words="hi"):
    return OutputEvent(t, Kind.TEXT, {"channel": "say", "text": words})


def stop(t):
    return OutputEvent(t, Kind.UI, STOP_PLAYBACK)
