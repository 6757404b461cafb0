"""An exported artefact as something that steps one lane, micro-turn by micro-turn.

In: the artefact's folder, then each micro-turn's `LaneInput`. Out: text per channel and the
waveform. Only the manifest says what goes in and what ids mean.
"""

import dataclasses

import numpy as np

from interaction import configuration
from interaction.microturn import Grid
from interaction.serving.compilation_cache import use_compilation_cache
from interaction.serving.runtime import Runtime
from interaction.serving.transcript import check_tokens
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import ChannelReader, read_tokenizer
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import CHANNELS, Control


@dataclasses.dataclass(frozen=True)
class BoardOutput:
    """What lane 0 put out in one micro-turn.

    Attributes:
        tokens: ids with their closer.
        written, said, delegated: text per channel.
        closer: the micro-turn's closer.
        waveform: float32 ``[W]``.
        forgotten_text: text slots that gave way in this micro-turn.
    """

    tokens: tuple[int, ...]
    written: str
    said: str
    delegated: str
    closer: Control
    waveform: np.ndarray
    forgotten_text: int


class ArtefactBoard:
    """Lane 0 of an artefact; the others stay empty.

    Args:
        folder: made by ``launch.py export``; its programs are made ready at once.

    Raises:
        ArtefactError: it cannot be run here.
    """

    def __init__(self, folder: str):
        use_compilation_cache(None)
        self._runtime = Runtime(folder)
        manifest = self._runtime.manifest
        check_tokens(manifest)
        self._runtime.warm_up()
        self.weave = configuration.build(WeaveConfig, manifest.weave, where="weave")
        self.grid = Grid(sample_rate=manifest.sample_rate)
        self.tokenizer = read_tokenizer()
        self._reader, self._forgotten = ChannelReader(self.tokenizer), 0

    def begin(self, seed: int) -> None:
        """A fresh session."""
        self._runtime.begin(seed)
        self._reader, self._forgotten = ChannelReader(self.tokenizer), 0

    def step(self, given: LaneInput) -> BoardOutput:
        """One micro-turn."""
        manifest = self._runtime.manifest
        bucket = self._bucket(given)
        lanes = [given] + [None] * (manifest.lanes - 1)
        inputs = weave_inputs(lanes, self.weave, slots=bucket.slots, patches=bucket.patches)
        outputs = self._runtime.step(vars(inputs))
        ids = outputs["tokens"][0].tolist()
        text = self._reader.push(given.micro_turn, ids)
        by_channel: dict[Control, str] = dict.fromkeys(CHANNELS, "")
        for piece in text.pieces:
            by_channel[piece.channel] += piece.text
        before, self._forgotten = self._forgotten, int(outputs["forgotten_text"][0])
        return BoardOutput(
            tokens=tuple(token for token in ids if token >= 0),
            written=by_channel[Control.WRITE],
            said=by_channel[Control.SAY],
            delegated=by_channel[Control.DELEGATE],
            closer=Control.END if text.closer is None else text.closer,
            waveform=outputs["waveform"][0],
            forgotten_text=self._forgotten - before,
        )

    def _bucket(self, given: LaneInput):
        """The smallest bucket that holds the input."""
        seen = 0 if given.video is None else len(given.video)
        text = sum(1 + len(piece.tokens) for piece in given.text_in)
        slots = seen + text + self.weave.audio_frames * len(given.audio) + 1
        for bucket in self._runtime.manifest.buckets:
            if slots <= bucket.slots and seen <= bucket.patches:
                return bucket
        return self._runtime.manifest.buckets[-1]
