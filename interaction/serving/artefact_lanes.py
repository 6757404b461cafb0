"""An exported artefact as lanes for sessions that come and go: what `session.lanes` is of a model.

In: the artefact's folder, then each micro-turn's `LaneInput` of every lane. Out: text per channel
and the waveform of every lane. Only the manifest says what goes in and what ids mean.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from interaction import configuration
from interaction.microturn import Grid
from interaction.serving.manifest import Bucket
from interaction.serving.runtime import Runtime
from interaction.serving.transcript import check_tokens
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import ChannelReader, read_tokenizer
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import CHANNELS, Control


@dataclasses.dataclass(frozen=True)
class BoardOutput:
    """What a lane put out in one micro-turn.

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


class ArtefactLanes:
    """The lanes of an artefact, all free at first; its programs are made ready at once.

    Args:
        folder: made by ``launch.py export``.

    Attributes:
        lanes: B, as exported.

    Raises:
        ArtefactError: it cannot be run here.
    """

    def __init__(self, folder: str | pathlib.Path):
        self._runtime = Runtime(folder)
        manifest = self._runtime.manifest
        check_tokens(manifest)
        self._runtime.warm_up()
        self._buckets = manifest.buckets
        self.weave = configuration.build(WeaveConfig, manifest.weave, where="weave")
        self.grid = Grid(sample_rate=manifest.sample_rate)
        self.tokenizer = read_tokenizer()
        self.lanes = manifest.lanes
        self._next = [0] * self.lanes
        self._readers: dict[int, ChannelReader] = {}  # of lanes that hold a session
        self._forgotten = [0] * self.lanes

    def open(self, *, seed: int = 0) -> int:
        """Admit a session to the first free lane; the lane. Others go on untouched.

        Lane i draws from its own fold of `seed`: the noise is another one in another lane.

        Raises:
            ValueError: no lane is free.
        """
        free = [lane for lane in range(self.lanes) if lane not in self._readers]
        if not free:
            raise ValueError(f"all of lanes={self.lanes} lanes hold a session; close one first")
        lane = free[0]
        self._runtime.admit(np.arange(self.lanes) == lane, seed)
        self._readers[lane] = ChannelReader(self.tokenizer)
        self._next[lane] = self._forgotten[lane] = 0
        return lane

    def close(self, lane: int) -> None:
        """End a lane's session; the lane is free."""
        if lane not in self._readers:
            raise ValueError(f"lane={lane} holds no session; lanes={self.lanes}")
        del self._readers[lane]

    def step(self, inputs: Sequence[LaneInput | None]) -> list[BoardOutput | None]:
        """One micro-turn of every lane that has an input; None: the lane stands still.

        Raises:
            ValueError: an input that does not fit, or is not of its lane's next micro-turn, or is
                for a lane without a session. No lane has moved then.
        """
        for lane, item in enumerate(inputs):
            if item is None:
                continue
            if lane not in self._readers:
                raise ValueError(f"lane={lane} holds no session; lanes={self.lanes}")
            if item.micro_turn != self._next[lane]:
                raise ValueError(
                    f"lane {lane} is at micro_turn={self._next[lane]}, its input is of "
                    f"micro_turn={item.micro_turn}"
                )
        bucket = self._bucket([item for item in inputs if item is not None])
        woven = weave_inputs(inputs, self.weave, slots=bucket.slots, patches=bucket.patches)
        outputs = self._runtime.step(vars(woven))
        return [
            None if item is None else self._read(lane, item, outputs)
            for lane, item in enumerate(inputs)
        ]

    def _read(self, lane: int, item: LaneInput, outputs) -> BoardOutput:
        self._next[lane] += 1
        ids = outputs["tokens"][lane].tolist()
        text = self._readers[lane].push(item.micro_turn, ids)
        by_channel: dict[Control, str] = dict.fromkeys(CHANNELS, "")
        for piece in text.pieces:
            by_channel[piece.channel] += piece.text
        forgotten = int(outputs["forgotten_text"][lane])
        before, self._forgotten[lane] = self._forgotten[lane], forgotten
        return BoardOutput(
            tokens=tuple(token for token in ids if token >= 0),
            written=by_channel[Control.WRITE],
            said=by_channel[Control.SAY],
            delegated=by_channel[Control.DELEGATE],
            closer=Control.END if text.closer is None else text.closer,
            waveform=outputs["waveform"][lane],
            forgotten_text=forgotten - before,
        )

    def _bucket(self, items: Sequence[LaneInput]) -> Bucket:
        """The smallest bucket that holds every input."""
        slots = patches = 0
        for item in items:
            seen = 0 if item.video is None else len(item.video)
            text = sum(1 + len(piece.tokens) for piece in item.text_in)
            slots = max(slots, seen + text + self.weave.audio_frames * len(item.audio) + 1)
            patches = max(patches, seen)
        for bucket in self._buckets:
            if slots <= bucket.slots and patches <= bucket.patches:
                return bucket
        return self._buckets[-1]
