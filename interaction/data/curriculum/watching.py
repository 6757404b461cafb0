"""Watching: saying when a movement starts and stops, and when what was asked for appears.

In: a `Script`. Out: it has grown by one episode, and the frames to see. Behaviour 6 of the
curriculum; repetitions are counted in `interaction.data.conversations`.
"""

import colorsys

import numpy as np

from interaction.data import video as videos
from interaction.data.clips import Split
from interaction.data.curriculum import lexicon as words
from interaction.data.curriculum.script import Script
from interaction.data.figure import kick_motion
from interaction.microturn import MICRO_TURN_SECONDS

HUES = {"red": 0.0, "yellow": 0.155, "green": 0.34, "blue": 0.62}
SEES_MOVEMENT, SEES_REST = 0.12, 0.2  # seconds of it before it is said
SEES_COLOUR = 0.15


def start_and_stop(script: Script) -> np.ndarray:
    """ "Say when it starts and stops": a figure moves for a while; frames uint8 ``[F, 80, 80, 3]``.

    Raises:
        Full: the session is too short.
    """
    random = script.random
    script.now = 0.2
    begin = script.ask("say when it starts and stops")
    total = script.micro_turns * MICRO_TURN_SECONDS
    speed = float(random.uniform(0.9, 1.5))
    length = float(kick_motion()[0][-1]) / speed
    first = begin + float(random.uniform(0.6, 1.8))
    count = int(random.integers(1, 5))
    while count > 1 and first + count * length > total - 1.4:
        count -= 1
    starts = first + length * np.arange(count)
    stop = float(starts[-1] + length)
    script.note("movement", first, stop)
    script.answer("start", first, delay=SEES_MOVEMENT, say="start")
    script.answer("stop", stop, delay=SEES_REST, say="stop")
    frames = round(total * videos.FRAMES_PER_SECOND)
    return videos.figure_video(random, script.split, starts, speed, frames)


def colours_appear(script: Script) -> np.ndarray:
    """Discs of several colours come and go; the one asked for, or each one, is to be told.

    Where one is asked for, each is shown (`write`) as it is seen: what was asked for and what is
    there stand side by side.

    Returns:
        Frames, uint8 ``[F, 80, 80, 3]``.

    Raises:
        Full: the session is too short.
    """
    random = script.random
    script.now = 0.2
    wanted = str(random.choice(words.COLOURS)) if random.random() < 0.6 else ""
    text = f"tell me when you see {wanted}" if wanted else "name the colors you see"
    asked = script.ask(text)
    if wanted:
        script.answer("shown", asked, write=wanted)
    here = asked + float(random.uniform(0.4, 1.2))
    total = script.micro_turns * MICRO_TURN_SECONDS
    count = round(total * videos.FRAMES_PER_SECOND)
    frames = videos.background(random, count, script.split)
    frames[:] = (
        frames // 3 + frames.mean(axis=3, keepdims=True, dtype=np.float32).astype(np.int16) // 2
    )  # muted, so that a colour is a colour
    order = [str(c) for c in random.permutation(words.COLOURS)]
    for name in order:
        stays = float(random.uniform(0.8, 1.6))
        if here + stays > total - 1.2:
            break
        _disc(random, frames, script.split, name, here, stays)
        script.note("appears", here, here + stays, name)
        if name == wanted:
            script.answer("appears", here, delay=SEES_COLOUR, write=name, say="now")
        elif wanted:
            script.answer("seen", here, delay=SEES_COLOUR, write=name)
        else:
            script.answer("names", here, delay=SEES_COLOUR, say=name)
        here += stays + float(random.uniform(0.3, 1.2))
    return videos.finish(random, frames)


def _disc(random, frames, split: Split, name: str, start: float, seconds: float) -> None:
    hue = (HUES[name] + float(random.uniform(-0.02, 0.02))) % 1.0
    tint = np.asarray(colorsys.hsv_to_rgb(hue, random.uniform(0.8, 1), random.uniform(0.75, 1)))
    radius = videos.banded(random, 9, 24, split)
    x, y = random.uniform(radius, videos.SIZE - radius, 2)
    rows, columns = np.mgrid[0 : videos.SIZE, 0 : videos.SIZE]
    inside = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
    first = int(np.ceil(start * videos.FRAMES_PER_SECOND - 1e-6))
    last = int(np.ceil((start + seconds) * videos.FRAMES_PER_SECOND - 1e-6))
    frames[first:last, inside] = (255 * tint).astype(np.int16)
