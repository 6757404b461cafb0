"""The online loop: lanes stepped once per micro-turn, against a clock.

In: a checkpoint's parameters and what arrives. Out: what each lane puts out, and for a whole
session its `SessionRecord`. `Lanes` owns the device state and picks the input bucket; `converse`
runs one recorded session in real time or as fast as it goes, and says when each sound plays.
"""

import concurrent.futures
import dataclasses
import enum
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from interaction.microturn import MICRO_TURN_SECONDS, output_seconds
from interaction.models.config import InteractionConfig
from interaction.session.record import MicroTurnRecord, SessionRecord
from interaction.session.recording import Arrived, Recording
from interaction.session.state import SessionState, init_state
from interaction.session.step import compile_step
from interaction.streams.text import ChannelReader, Tokenizer, read_tokenizer
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import Control

# A sound that starts is held this long, so that a slower step does not tear the next chunk off.
ONSET_MARGIN_SECONDS = 0.03


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Static sizes of one compiled step: input slots and video patches."""

    slots: int
    patches: int


@dataclasses.dataclass(frozen=True)
class LaneOutput:
    """What one lane put out in one micro-turn.

    Attributes:
        tokens: ids with their closer.
        written, said, delegated: text per channel.
        closer: the micro-turn's closer.
        mel: float32 ``[R, Z]``.
        waveform: float32 ``[3200]``.
    """

    tokens: tuple[int, ...]
    written: str
    said: str
    delegated: str
    closer: Control
    mel: np.ndarray
    waveform: np.ndarray


def buckets(config: InteractionConfig) -> tuple[Bucket, ...]:
    """The input sizes that are compiled, smallest first: sound alone, sound and video, all."""
    sound = config.grid.audio_frames + 1
    patches = config.vision.max_patches
    return (
        Bucket(sound, 0),
        Bucket(sound + patches, patches),
        Bucket(config.max_input_slots, patches),
    )


class Lanes:
    """B sessions stepped in lockstep.

    Args:
        params: the whole tree.
        config: the model.
        lanes: B.
        seed: of the lanes' noise.
        tokenizer: reads the text; None: bytes.
    """

    def __init__(
        self,
        params: dict,
        config: InteractionConfig,
        *,
        lanes: int = 1,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
    ):
        # Unrolled layers train faster but triple the time that compiling the step takes.
        stack = dataclasses.replace(config.transformer, unroll=1)
        config = dataclasses.replace(config, transformer=stack)
        self.params, self.config = params, config
        self.tokenizer = tokenizer or read_tokenizer()
        self.lanes = lanes
        self._step = compile_step(config)
        self._buckets = buckets(config)
        self.state = init_state(config, lanes, seed=seed)
        self._readers = [ChannelReader(self.tokenizer) for _ in range(lanes)]

    @property
    def state(self) -> SessionState:
        """The device state of every lane, to copy (`step` gives its arrays away) or to replace.

        What a lane's text channels hold back is not in it: that is the reader's.
        """
        return self._state

    @state.setter
    def state(self, state: SessionState) -> None:
        self._state = state
        self._next = np.array(state.micro_turn)

    def warm_up(self) -> None:
        """Compile every bucket on a state that is thrown away, side by side in threads."""

        def compile_bucket(bucket: Bucket) -> None:
            inputs = weave_inputs(
                [None] * self.lanes,
                self.config.weave,
                slots=bucket.slots,
                patches=bucket.patches,
            )
            scratch = init_state(self.config, self.lanes)
            jax.block_until_ready(self._step(self.params, scratch, inputs))

        with concurrent.futures.ThreadPoolExecutor(len(self._buckets)) as pool:
            list(pool.map(compile_bucket, self._buckets))

    def step(self, inputs: Sequence[LaneInput | None]) -> list[LaneOutput | None]:
        """One micro-turn of every lane that has an input; None: the lane stands still.

        Raises:
            ValueError: an input that does not fit, or is not of its lane's next micro-turn. No
                lane has moved then.
        """
        for lane, item in enumerate(inputs):
            if item is not None and item.micro_turn != self._next[lane]:
                raise ValueError(
                    f"lane {lane} is at micro_turn={self._next[lane]}, its input is of "
                    f"micro_turn={item.micro_turn}"
                )
        bucket = self._bucket(inputs)
        woven = weave_inputs(inputs, self.config.weave, slots=bucket.slots, patches=bucket.patches)
        self._state, outputs = self._step(self.params, self._state, woven)
        self._next += woven.active
        tokens, mel, waveform = jax.device_get((outputs.tokens, outputs.mel, outputs.waveform))
        return [
            None
            if item is None
            else self._read(lane, item, tokens[lane], mel[lane], waveform[lane])
            for lane, item in enumerate(inputs)
        ]

    def _bucket(self, inputs: Sequence[LaneInput | None]) -> Bucket:
        """The smallest bucket that holds every lane's input."""
        frames = self.config.grid.audio_frames
        slots = patches = 0
        for item in inputs:
            if item is None:
                continue
            seen = 0 if item.video is None else len(item.video)
            text = sum(1 + len(piece.tokens) for piece in item.text_in)
            slots = max(slots, seen + text + frames * len(item.audio) + 1)
            patches = max(patches, seen)
        for bucket in self._buckets:
            if slots <= bucket.slots and patches <= bucket.patches:
                return bucket
        return self._buckets[-1]

    def _read(self, lane, item, tokens, mel, waveform) -> LaneOutput:
        ids = tuple(int(token) for token in tokens if token >= 0)
        text = self._readers[lane].push(item.micro_turn, ids)
        by_channel = dict.fromkeys((Control.WRITE, Control.SAY, Control.DELEGATE), "")
        for piece in text.pieces:
            by_channel[piece.channel] += piece.text
        return LaneOutput(
            tokens=ids,
            written=by_channel[Control.WRITE],
            said=by_channel[Control.SAY],
            delegated=by_channel[Control.DELEGATE],
            closer=Control.END if text.closer is None else text.closer,
            mel=mel,
            waveform=waveform,
        )


# ---------------------------------------------------------------- one session


class Pace(enum.Enum):
    """Which clock a session runs against.

    REAL waits until each micro-turn's input has passed. MEASURED does not wait but counts the
    measured time of every step; INSTANT counts it as 0.
    """

    REAL = "real"
    MEASURED = "simulated, compute time measured"
    INSTANT = "simulated, compute time 0"


@dataclasses.dataclass
class Playback:
    """When each chunk of sound plays.

    Sound of micro-turn m exists at ``0.2 (m + 1)`` s plus the step's time; if the step took
    longer than a micro-turn it waits for the next border. A sound that starts is held for
    `ONSET_MARGIN_SECONDS` (unless compute time counts as 0), and one that goes on joins the chunk
    before it without a gap if it is there in time.
    """

    margin: float = ONSET_MARGIN_SECONDS
    ends: float = -1.0
    speaking: bool = False

    def start(self, micro_turn: int, step_seconds: float, speaks: bool) -> float:
        """Session time at which this micro-turn's samples start to play."""
        ready = output_seconds(micro_turn) + step_seconds
        if step_seconds > MICRO_TURN_SECONDS:
            ready = np.ceil(ready / MICRO_TURN_SECONDS) * MICRO_TURN_SECONDS
        # The chunk after the last spoken one carries the vocoder's delayed tail: it joins too.
        # No chunk starts before one with sound has ended, the tail included.
        start = max(ready if self.speaking else ready + self.margin, self.ends)
        if speaks or self.speaking:
            self.ends = start + MICRO_TURN_SECONDS
        self.speaking = speaks
        return float(start)


def converse(
    lanes: Lanes,
    recording: Recording,
    *,
    pace: Pace,
    checkpoint: str = "",
    observe: Callable[[MicroTurnRecord], None] | None = None,
) -> SessionRecord:
    """Run a recorded session in lane 0.

    Args:
        lanes: fresh lanes, warmed up.
        recording: what comes in.
        pace: the clock.
        checkpoint: name for the record.
        observe: called with every micro-turn's record as it is made.
    """
    config = lanes.config
    arrivals = recording.arrivals(config, lanes.tokenizer)
    playback = Playback(margin=0.0 if pace is Pace.INSTANT else ONSET_MARGIN_SECONDS)
    others = [None] * (lanes.lanes - 1)
    records = []
    begin = time.monotonic()
    for arrived in arrivals:
        now = arrived.lane.micro_turn
        if pace is Pace.REAL:
            time.sleep(max(0.0, begin + output_seconds(now) - time.monotonic()))
        started = time.perf_counter()
        output = lanes.step([arrived.lane, *others])[0]
        seconds = time.perf_counter() - started
        assert output is not None
        speaks = output.closer is Control.SPEAK
        start = playback.start(now, 0.0 if pace is Pace.INSTANT else seconds, speaks)
        record = _record(arrived, output, start, 1000 * seconds, config)
        records.append(record)
        if observe is not None:
            observe(record)
    return SessionRecord(
        sample_rate=config.grid.sample_rate,
        micro_turns=tuple(records),
        pace=pace.value,
        checkpoint=checkpoint,
    )


def _record(
    arrived: Arrived, output: LaneOutput, start: float, milliseconds: float, config
) -> MicroTurnRecord:
    lane = arrived.lane
    heard = lane.audio[-1][1] if lane.audio else np.zeros(config.grid.samples, np.float32)
    return MicroTurnRecord(
        micro_turn=lane.micro_turn,
        heard_audio=heard,
        lateness=tuple(lane.micro_turn - chunk_time for chunk_time, _ in lane.audio),
        video_frame=arrived.frame,
        text_in=arrived.text,
        written=output.written,
        said=output.said,
        delegated=output.delegated,
        closer=output.closer.name.lower(),
        spoken_audio=output.waveform,
        play_start_seconds=start,
        step_milliseconds=milliseconds,
        dropped=arrived.dropped,
    )
