"""Timed events of every stream to micro-turns, and micro-turns back to events.

In: `Events`: sound, frames and text with their times in seconds, outputs with their micro-turns.
Out: `on_grid` gives the list of `MicroTurn` that `weave` takes; `from_grid` reads such a list
back as `GridEvents`. Text and outputs come back as they went in (times on the grid).
"""

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.microturn import Grid, micro_turn_of, start_seconds
from interaction.streams.audio import DMelStream
from interaction.streams.image import frame_at, tubelets
from interaction.streams.layout import WeaveConfig, checked_text_out
from interaction.streams.text import ChannelReader, Tokenizer
from interaction.types import TEXT_SOURCES, AudioChunk, Control, MicroTurn, TextIn


@dataclasses.dataclass(frozen=True)
class HeardAudio:
    """Sound that comes in: mono float `samples` ``[W]`` at the grid's rate, from `start` s on."""

    start: float
    samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class VideoFrames:
    """Frames that come in: rising `times` ``[F]`` in seconds, uint8 `frames` ``[F, h, w, 3]``."""

    times: np.ndarray
    frames: np.ndarray

    def __post_init__(self):
        if len(self.times) != len(self.frames):
            raise ValueError(f"{len(self.times)} times for {len(self.frames)} frames")
        if len(self.times) and (np.diff(self.times) < 0).any():
            raise ValueError("times of frames must not fall")


@dataclasses.dataclass(frozen=True)
class TextEvent:
    """Text that comes in at `seconds` from one of `TEXT_SOURCES`.

    Attributes:
        more: it is a piece of a message, and the next piece follows; a system that waits for whole
            messages needs to know, this model reads what is there.
    """

    seconds: float
    source: Control
    text: str
    more: bool = False


@dataclasses.dataclass(frozen=True)
class Output:
    """What the model puts out at one micro-turn.

    Attributes:
        micro_turn: when.
        write: text shown, never spoken.
        say: the words of its own speech.
        delegate: request for the background model; goes on in the micro-turns that follow where
            it does not fit into one.
        speech: float32 ``[R, Z]`` normalised mel of 200 ms, or None for silence.
        yields: the floor is given up (closer YIELD); not together with `speech`.
        text_weight, speech_weight: weights in the loss.
    """

    micro_turn: int
    write: str = ""
    say: str = ""
    delegate: str = ""
    speech: np.ndarray | None = None
    yields: bool = False
    text_weight: float = 1.0
    speech_weight: float = 1.0

    def __post_init__(self):
        if self.yields and self.speech is not None:
            raise ValueError(f"micro-turn {self.micro_turn}: yields and speech exclude each other")


@dataclasses.dataclass(frozen=True)
class Events:
    """A conversation as timed events.

    Attributes:
        audio: sound; pieces may leave gaps but not overlap. A micro-turn no piece reaches into
            has no chunk.
        video: frames, or None.
        text: text that comes in, in order of time.
        outputs: what the model puts out, at most one per micro-turn.
        lost: times of chunks that never arrived.
        late: chunk time -> micro-turns by which it came late.
    """

    audio: Sequence[HeardAudio] = ()
    video: VideoFrames | None = None
    text: Sequence[TextEvent] = ()
    outputs: Sequence[Output] = ()
    lost: frozenset[int] = frozenset()
    late: Mapping[int, int] = dataclasses.field(default_factory=dict)


class TextInQueue:
    """Text that waits for its micro-turn; what does not fit goes on in the next one."""

    def __init__(self, tokenizer: Tokenizer, config: WeaveConfig):
        if tokenizer.size != config.ordinary_tokens:
            raise ValueError(
                f"tokenizer.size={tokenizer.size} differs from "
                f"ordinary_tokens={config.ordinary_tokens}"
            )
        self._tokenizer, self._room = tokenizer, config.max_text_in
        self._waiting: deque[tuple[Control, list[int]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, source: Control, text: str) -> None:
        """Adds text at the end of the queue.

        Raises:
            ValueError: no such source, or a configuration without room for text.
        """
        if source not in TEXT_SOURCES:
            raise ValueError(f"source={source!r} is not one of {[s.name for s in TEXT_SOURCES]}")
        if self._room < 2:
            raise ValueError(f"max_text_in={self._room} leaves no room for text (2 are needed)")
        self._waiting.append((source, self._tokenizer.encode(text)))

    def take(self) -> tuple[TextIn, ...]:
        """What the next micro-turn takes in; each piece begins with its source again."""
        taken, room = [], self._room
        while self._waiting:
            source, tokens = self._waiting[0]
            if room < 1 + min(1, len(tokens)):
                break
            piece, rest = tokens[: room - 1], tokens[room - 1 :]
            taken.append(TextIn(source, tuple(piece)))
            room -= 1 + len(piece)
            if rest:
                self._waiting[0] = (source, rest)
                break
            self._waiting.popleft()
        return tuple(taken)


# ---------------------------------------------------------------- events to micro-turns


def on_grid(
    events: Events,
    tokenizer: Tokenizer,
    config: WeaveConfig,
    *,
    grid: Grid | None = None,
    micro_turns: int | None = None,
    silent: Control | None = Control.PASS,
) -> list[MicroTurn]:
    """Puts events on the 200 ms grid.

    Sound is cut into chunks of one micro-turn (the rest of a chunk that is only partly covered is
    silence) and heard in order of arrival: a chunk that does not follow the last one heard starts
    from silence. Frames are resampled to the grid's video rate: each interval shows the newest
    frame that came before its end, for up to a second. Outputs are written in the order write,
    say, delegate.

    Args:
        events: what happened.
        tokenizer: its `size` must be `config.ordinary_tokens`.
        config: sizes and limits.
        grid: rates; None: the default ones.
        micro_turns: how many to give; None: as many as the events need.
        silent: closer of micro-turns without an output; None: no output there.

    Raises:
        ValueError: events that do not fit (overlapping sound, text over its limit, two outputs
            for one micro-turn, events before 0 or after the last micro-turn).
    """
    grid = grid or Grid()
    audio = _audio_chunks(events, config, grid)
    video = _video_tubelets(events.video, config, grid)
    text_in = _text_in(events.text, tokenizer, config)
    outputs = _outputs(events.outputs, tokenizer, config)
    needed = 1 + max([-1, *audio, *video, *text_in, *outputs])
    count = needed if micro_turns is None else micro_turns
    if count < needed:
        raise ValueError(f"events reach micro-turn {needed - 1}, micro_turns={micro_turns}")
    quiet = _Placed(None, None if silent is None else (tokenizer.control(silent),))
    result = []
    for now in range(count):
        placed = outputs.get(now, quiet)
        output = placed.output
        result.append(
            MicroTurn(
                micro_turn=now,
                video=video.get(now),
                text_in=text_in.get(now, ()),
                audio=audio.get(now, ()),
                text_out=placed.ids,
                speech=None if output is None else output.speech,
                text_weight=placed.text_weight,
                speech_weight=1.0 if output is None else output.speech_weight,
            )
        )
    return result


def _audio_chunks(events, config, grid) -> dict[int, tuple[AudioChunk, ...]]:
    """Micro-turn of arrival -> the chunks that arrive then, late ones first."""
    size, chunks = grid.samples, {}
    end = 0
    for piece in sorted(events.audio, key=lambda piece: piece.start):
        start, samples = round(piece.start * grid.sample_rate), np.asarray(piece.samples)
        if start < end:
            raise ValueError(
                f"sound from {piece.start} s on begins before {end / grid.sample_rate} s, where "
                "earlier sound (or time) ends"
            )
        end = start + len(samples)
        for time in range(start // size, -(-end // size)):
            chunk = chunks.setdefault(time, np.zeros(size, np.float32))
            low, high = max(start, time * size), min(end, (time + 1) * size)
            chunk[low - time * size : high - time * size] = samples[low - start : high - start]
    arrivals = []
    for time, chunk in chunks.items():
        late = events.late.get(time, 0)
        if not 0 <= late <= config.max_lateness:
            raise ValueError(f"late[{time}]={late} is not in 0..max_lateness={config.max_lateness}")
        if time not in events.lost:
            arrivals.append((time + late, time, chunk))
    stream, result = DMelStream(), {}
    for arrival, time, chunk in sorted(arrivals, key=lambda item: item[:2]):
        heard = AudioChunk(stream.push(chunk, time), arrival - time)
        result[arrival] = (*result.get(arrival, ()), heard)
        if len(result[arrival]) > config.max_audio_chunks:
            raise ValueError(
                f"micro-turn {arrival}: {len(result[arrival])} chunks arrive, more than "
                f"max_audio_chunks={config.max_audio_chunks}"
            )
    return result


def _video_tubelets(video, config, grid) -> dict[int, np.ndarray]:
    if video is None or len(video.times) == 0 or config.max_patches == 0:
        return {}
    if video.times[0] < -1e-6:
        raise ValueError(f"the first frame is at {video.times[0]} s, before 0")
    per_turn = grid.video_frames
    if per_turn != config.tubelet_frames:
        raise ValueError(
            f"video_rate={grid.video_rate} gives {per_turn} frames per micro-turn, a tubelet has "
            f"tubelet_frames={config.tubelet_frames}"
        )
    last = micro_turn_of(float(video.times[-1]))
    index = frame_at(video.times, grid.video_rate, (last + 1) * per_turn).reshape(-1, per_turn)
    result = {}
    for now in np.flatnonzero(index[:, -1] >= 0).tolist():
        chosen = np.where(index[now] < 0, index[now, -1], index[now])
        result[now] = tubelets(
            video.frames[chosen], max_patches=config.max_patches, patch=config.patch
        )
    return result


def _text_in(text, tokenizer, config) -> dict[int, tuple[TextIn, ...]]:
    queue, result = TextInQueue(tokenizer, config), {}
    waiting = deque(sorted(text, key=lambda event: event.seconds))
    if waiting and waiting[0].seconds < 0:
        raise ValueError(f"text at {waiting[0].seconds} s lies before 0")
    now = 0
    while waiting or queue:
        if not queue:
            now = max(now, micro_turn_of(waiting[0].seconds))
        while waiting and micro_turn_of(waiting[0].seconds) <= now:
            event = waiting.popleft()
            queue.put(event.source, event.text)
        result[now] = queue.take()
        now += 1
    return result


@dataclasses.dataclass(frozen=True)
class _Placed:
    """Ids of one micro-turn with the output they came from (None: a request goes on)."""

    output: Output | None
    ids: tuple[int, ...] | None
    text_weight: float = 1.0


def _outputs(outputs, tokenizer, config) -> dict[int, _Placed]:
    """Micro-turn -> what is put out; a long request fills the micro-turns after its own."""
    result: dict[int, _Placed] = {}
    request: list[int] = []  # ids of a request that are still to be put out
    weight, now, room = 1.0, -1, config.max_text_out - 1
    waiting = deque(sorted(outputs, key=lambda output: output.micro_turn))
    while waiting or request:
        now = now + 1 if request else waiting[0].micro_turn
        output = waiting.popleft() if waiting and waiting[0].micro_turn <= now else None
        if output is not None and (output.micro_turn < 0 or output.micro_turn in result):
            raise ValueError(
                f"micro_turn={output.micro_turn} of an output is below 0, or has two outputs"
            )
        words, opening = _output_ids(output, tokenizer)
        needed = len(request) + len(words) + bool(opening)
        if (words or opening) and needed > room:
            raise ValueError(
                f"micro-turn {now}: {len(request)} ids of an earlier request and {len(words)} of "
                f"text do not fit into max_text_out={config.max_text_out}"
            )
        weight = weight if output is None else output.text_weight
        ids = request + words + opening
        ids, request = ids[:room], ids[room:]
        closer = tokenizer.control(_closer(output, bool(ids)))
        tokens = checked_text_out(now, (*ids, closer), config)
        result[now] = _Placed(output, tuple(tokens), weight)
    return result


def _output_ids(output, tokenizer) -> tuple[list[int], list[int]]:
    """Ids of what is written and said, and ids of the request, each with its channel token."""
    if output is None:
        return [], []
    words = []
    for channel, text in ((Control.WRITE, output.write), (Control.SAY, output.say)):
        words += [tokenizer.control(channel), *tokenizer.encode(text)] if text else []
    if not output.delegate:
        return words, []
    begin, end = tokenizer.control(Control.DELEGATE), tokenizer.control(Control.DONE)
    return words, [begin, *tokenizer.encode(output.delegate), end]


def _closer(output: Output | None, has_text: bool) -> Control:
    if output is not None and output.speech is not None:
        return Control.SPEAK
    if output is not None and output.yields:
        return Control.YIELD
    return Control.END if has_text else Control.PASS


# ---------------------------------------------------------------- micro-turns to events


@dataclasses.dataclass(frozen=True)
class HeardBins:
    """A chunk that was heard: the micro-turn it belongs to, its arrival, uint8 ``[4, 80]``."""

    chunk_time: int
    arrival: int
    bins: np.ndarray


@dataclasses.dataclass(frozen=True)
class SeenTubelets:
    """What was seen at a micro-turn, uint8 ``[P, 2, p, p, 3]``."""

    micro_turn: int
    tubelets: np.ndarray


@dataclasses.dataclass(frozen=True)
class GridEvents:
    """Events read back from micro-turns; see `Events` for `text` and `outputs`."""

    audio: tuple[HeardBins, ...]
    video: tuple[SeenTubelets, ...]
    text: tuple[TextEvent, ...]
    outputs: tuple[Output, ...]


def from_grid(micro_turns: Sequence[MicroTurn], tokenizer: Tokenizer) -> GridEvents:
    """Reads micro-turns back as events.

    Text comes at the beginning of its micro-turn, one event per piece (a long text is several
    pieces). A micro-turn closed by PASS without text is no output; a request is told whole, at the
    micro-turn that opened it.
    """
    audio, video, text = [], [], []
    decoders = {source: tokenizer.decoder() for source in TEXT_SOURCES}
    for item in micro_turns:
        now = item.micro_turn
        audio += [HeardBins(now - c.lateness, now, c.bins) for c in item.audio]
        if item.video is not None:
            video.append(SeenTubelets(now, item.video))
        for piece in item.text_in:
            words = decoders[piece.source].push(piece.tokens)
            text.append(TextEvent(start_seconds(now), piece.source, words))
    return GridEvents(
        tuple(audio), tuple(video), tuple(text), _read_outputs(micro_turns, tokenizer)
    )


def _read_outputs(micro_turns, tokenizer) -> tuple[Output, ...]:
    reader = ChannelReader(tokenizer)
    words: dict[tuple[int, Control], str] = {}
    closed, opened = {}, -1
    for item in micro_turns:
        if item.text_out is None:
            continue
        read = reader.push(item.micro_turn, item.text_out)
        for piece in read.pieces:
            if piece.channel is Control.DELEGATE and piece.opens:
                opened = item.micro_turn
            at = opened if piece.channel is Control.DELEGATE else item.micro_turn
            words[at, piece.channel] = words.get((at, piece.channel), "") + piece.text
        closed[item.micro_turn] = (item, read.closer)
    result = []
    for now, (item, closer) in closed.items():
        output = Output(
            micro_turn=now,
            write=words.get((now, Control.WRITE), ""),
            say=words.get((now, Control.SAY), ""),
            delegate=words.get((now, Control.DELEGATE), ""),
            speech=item.speech,
            yields=closer is Control.YIELD,
            text_weight=item.text_weight,
            speech_weight=item.speech_weight,
        )
        if output.write or output.say or output.delegate or closer in _NOTABLE:
            result.append(output)
    return tuple(result)


_NOTABLE = (Control.SPEAK, Control.YIELD)
