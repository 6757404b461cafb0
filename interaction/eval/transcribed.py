"""Ears for recordings that somebody has written down already.

In: a run of the system `recorded`. Out: its words from the transcript beside the sound, where the
authors' tools leave it: `output.json` beside `output.wav`, `clean_output.json` beside
`clean_output.wav` (``{"chunks": [{"text", "timestamp": [start, end]}]}``), the `asr_chunks` of a
`result_{provider}.json`. With the authors' own transcripts COMPAT gives the figures of their code.
"""

import pathlib

from interaction.eval.ears import TwoPass
from interaction.eval.records import Clock, Run
from interaction.eval.suite import Ears, Word
from interaction.eval.suites.fdb import layout


class Transcripts:
    """Reads words from transcripts and leaves speech, and what the user said, to other ears.

    Args:
        speech: find stretches of speech; default `TwoPass`, that is Silero.
    """

    is_transcript = True

    def __init__(self, speech: Ears | None = None):
        self._speech = TwoPass() if speech is None else speech
        self.name = f"transcripts beside the recordings, speech by {self._speech.name}"
        self.is_silero = getattr(self._speech, "is_silero", False)

    def words(self, run: Run, clock: Clock) -> list[Word]:
        """Words of the transcript as they stand there, whatever the clock.

        Raises:
            ValueError: the run is no recording, or nobody wrote it down.
        """
        if run.system == "user":
            return self._speech.words(run, clock)
        if run.recording is None:
            raise ValueError(
                f"{run.system} on {run.id} is no recording: there is no transcript beside it"
            )
        return _words(run.recording)

    def speech(self, run: Run, clock: Clock) -> list[tuple[float, float]]:
        """Stretches of speech as the other ears find them."""
        return self._speech.speech(run, clock)


def _words(recording: pathlib.Path) -> list[Word]:
    path = recording.with_suffix(".json")
    content = layout.read_json(path, "a transcribed recording")
    chunks = content.get("asr_chunks", content.get("chunks")) if isinstance(content, dict) else None
    if not isinstance(chunks, list):
        raise ValueError(f"{path} has neither chunks nor asr_chunks")
    return layout.from_chunks({"chunks": chunks})
