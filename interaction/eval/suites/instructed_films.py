"""A film behind an instruction: how RepCount-A, Charades and ProactiveVideoQA are put to a system.

In: the instruction, a video file, what is true of it. Out: a `Sample`, spoken or typed: the
instruction, some quiet, the film, and time to answer.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from interaction.eval.records import Sample
from interaction.eval.suites import films
from interaction.eval.suites.instructions import Form, opening, session_of, stable_seed


def instructed_film(
    suite: str,
    key: str,
    text: str,
    form: Form,
    path: pathlib.Path,
    *,
    named_by: str,
    gap: float,
    shown: Callable[[], float],
    truth: Callable[[float], Mapping[str, Any]],
    voice: str = "",
    subtitles: tuple[tuple[float, str], ...] = (),
) -> Sample:
    """The instruction at once, the film `gap` seconds after it.

    Args:
        suite: name of the suite.
        key: of the film in its set; the sample's id adds the form.
        text: the instruction.
        form: spoken or typed.
        path: the film.
        named_by: the file that names it, for the message if it is missing.
        gap: seconds of quiet before it.
        shown: gives seconds from its beginning to the session's end.
        truth: from the second at which it begins to what scoring needs.
        voice: the spoken instruction's voice follows this; "": the key.
        subtitles: (second of the film, text) to burn in.

    Raises:
        ValueError: the film is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing, though {named_by} names it")
    start = opening(text, form, seed=stable_seed(voice or key))
    begin = round(start.end + gap, 4)
    length = shown()
    return Sample(
        suite=suite,
        scene=form.value,
        id=f"{key}-{form.value}",
        seconds=begin + length,
        audio=session_of(start, begin + length),
        video=films.film(path, start=begin, seconds=length, subtitles=subtitles),
        text=start.text,
        truth=truth(begin),
    )
