"""One session against a clock.

In: `Lanes` and a recording. Out: its `SessionRecord`. `converse` runs a recorded session in real
time or as fast as it goes, and says when each sound plays.
"""

import dataclasses
import enum
import time
from collections.abc import Callable

import numpy as np

from interaction.microturn import MICRO_TURN_SECONDS, ONSET_MARGIN_SECONDS, output_seconds
from interaction.session.lanes import LaneOutput, Lanes
from interaction.session.record import MicroTurnRecord, SessionRecord
from interaction.session.recording import Arrived, Recording
from interaction.types import Control


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
        forgotten_text=output.forgotten_text,
    )
