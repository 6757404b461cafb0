"""Micro-turns to the woven sequence and back; one layout code for training and for live use.

In: `MicroTurn` records (training, replay) or `LaneInput` records (the live step), host numpy.
Out: `Woven` (`Slots`, `Payloads`, `Targets` of one sequence, exact lengths), a padded `Batch`, or
the `MicroturnInputs` of one compiled step. `unweave` is the exact inverse of `weave`.

Layout of one micro-turn: VIDEO slots (one per patch), TEXT_IN slots (source token, then its
words), AUDIO slots (four per chunk), a TEXT_OUT slot with BEGIN, one TEXT_OUT slot per output id
(the closer last) and, after SPEAK, the SPEECH slots of its chunk. Absent streams take no slot.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from interaction.streams.layout import (
    Layout,
    WeaveConfig,
    checked_bins,
    checked_speech,
    checked_text_out,
    speaks,
)
from interaction.types import (
    AudioChunk,
    Batch,
    Control,
    MicroTurn,
    MicroturnInputs,
    Payloads,
    Slots,
    Stream,
    Targets,
    TextIn,
    pytree,
)

_VIDEO, _TEXT_IN, _AUDIO = int(Stream.VIDEO), int(Stream.TEXT_IN), int(Stream.AUDIO)
_TEXT_OUT, _SPEECH = int(Stream.TEXT_OUT), int(Stream.SPEECH)


@pytree
class Woven:
    """One woven sequence, numpy, without a batch axis and without padding."""

    slots: Slots
    payloads: Payloads
    targets: Targets


@dataclasses.dataclass(frozen=True)
class LaneInput:
    """What one lane takes in at one micro-turn of the live step.

    Attributes:
        micro_turn: session time.
        video: uint8 ``[P, 2, p, p, 3]`` tubelets, or None for no video.
        text_in: what was typed or came back, in order.
        audio: heard chunks in order of arrival, each as (the micro-turn the chunk belongs to,
            float32 ``[3200]`` samples).
    """

    micro_turn: int
    video: np.ndarray | None = None
    text_in: tuple[TextIn, ...] = ()
    audio: tuple[tuple[int, np.ndarray], ...] = ()


# ---------------------------------------------------------------- training: weave and unweave


def weave(
    micro_turns: Sequence[MicroTurn], config: WeaveConfig, *, first_position: int = 0
) -> Woven:
    """Lays micro-turns out as one sequence of slots.

    Args:
        micro_turns: in rising order of time; times may have gaps. One with neither input nor
            output takes no slot.
        config: sizes and limits.
        first_position: position of the first slot (a continued sequence).

    Returns:
        The sequence, exact lengths. The BEGIN slot predicts the first output id, each output id
        the next one, the closer nothing; a SPEAK closer is the `chunk_slot` of its chunk.

    Raises:
        ValueError: anything out of shape or over its limit, naming the micro-turn and both values.
    """
    layout = Layout(config)
    target: list[int] = []
    micro_turn_of: list[int] = []
    first: list[int] = []
    weights: list[tuple[int, int, float]] = []
    chunk_slots, chunk_weights = [], []
    bins, videos, mels = [], [], []
    previous = -1
    for item in micro_turns:
        now, start = item.micro_turn, len(layout.stream)
        if now <= previous:
            raise ValueError(f"micro_turn={now} follows micro_turn={previous}; times must rise")
        previous = now
        layout.add_input(now, item.video, item.text_in, [chunk.lateness for chunk in item.audio])
        if item.video is not None:
            videos.append(item.video)
        for chunk in item.audio:
            bins.append(checked_bins(now, chunk.bins, config))
        target += [-1] * (len(layout.stream) - start)
        if item.text_out is not None:
            text_out = checked_text_out(now, item.text_out, config)
            begin = len(layout.stream)
            layout.add_begin()
            layout.add_text_out(text_out)
            target += text_out
            target.append(-1)
            weights.append((begin, begin + len(text_out), item.text_weight))
        if speaks(item, config):
            chunk_slots.append(len(layout.stream) - 1)
            chunk_weights.append(item.speech_weight)
            mels.append(checked_speech(now, item.speech, config))
            layout.add_speech()
            target += [-1] * config.speech_slots
        count = len(layout.stream) - start
        if count:
            first.append(start)
            micro_turn_of += [now] * count
    return _gather(
        layout, target, micro_turn_of, first, weights, first_position,
        _stack(bins, (config.audio_frames, config.audio_bands), np.uint8),
        np.concatenate(videos) if videos else np.zeros((0, *config.tubelet_shape), np.uint8),
        _stack(mels, (config.mel_frames, config.mel_bands), np.float32),
        np.asarray(chunk_slots, np.int32), np.asarray(chunk_weights, np.float32),
    )  # fmt: skip


def _gather(
    layout, target, micro_turn_of, first, weights, first_position,
    bins, patches, mels, chunk_slots, chunk_weights,
) -> Woven:  # fmt: skip
    """Lists to arrays; checks that would cost too much per chunk are done here at once."""
    config, count = layout.config, len(layout.stream)
    if bins.size and bins.max() >= config.audio_levels:
        raise ValueError(
            f"audio bins reach {bins.max()}, levels are 0..audio_levels-1={config.audio_levels - 1}"
        )
    if not np.isfinite(mels).all():
        raise ValueError("speech holds a number that is not finite")
    is_first = np.zeros(count, bool)
    is_first[first] = True
    weight = np.zeros(count, np.float32)
    for start, stop, value in weights:
        weight[start:stop] = value
    slots = Slots(
        stream=np.asarray(layout.stream, np.int32),
        token=np.asarray(layout.token, np.int32),
        payload=np.asarray(layout.payload, np.int32),
        lateness=np.asarray(layout.lateness, np.int32),
        position=np.arange(first_position, first_position + count, dtype=np.int32),
        micro_turn=np.asarray(micro_turn_of, np.int32),
        first=is_first,
    )
    payloads = Payloads(
        audio=bins.reshape(-1, config.audio_bands),
        patches=patches,
        speech=mels.reshape(-1, config.speech_features),
    )
    targets = Targets(
        token=np.asarray(target, np.int32),
        token_weight=weight,
        chunk_slot=chunk_slots,
        chunk=mels,
        chunk_weight=chunk_weights,
    )
    return Woven(slots, payloads, targets)


def _stack(arrays, shape, dtype):
    return np.stack(arrays) if arrays else np.zeros((0, *shape), dtype)


def unweave(woven: Woven, config: WeaveConfig) -> list[MicroTurn]:
    """The micro-turns that `weave` made this sequence from; padding at the right is ignored.

    Weights come back for micro-turns that have what they weigh, else as 1. A micro-turn that took
    no slot does not come back.

    Raises:
        ValueError: the slots are not in the order of a micro-turn.
    """
    slots, payloads, targets = woven.slots, woven.payloads, woven.targets
    count = int(np.count_nonzero(slots.valid))
    stream, token = slots.stream[:count].tolist(), slots.token[:count].tolist()
    starts = np.flatnonzero(slots.first[:count]).tolist()
    if count and (not starts or starts[0] != 0):
        raise ValueError(f"the first of {count} slots does not begin a micro-turn")
    chunk_of = {int(slot): c for c, slot in enumerate(targets.chunk_slot) if slot > 0}
    result = []
    for start, stop in itertools.pairwise([*starts, count]):
        part, now = stream[start:stop], int(slots.micro_turn[start])
        if part != sorted(part):
            raise ValueError(f"micro-turn {now}: streams come as {part}, not in their order")
        edges = [start + part.count(_VIDEO)]
        for kind in (_TEXT_IN, _AUDIO, _TEXT_OUT, _SPEECH):
            edges.append(edges[-1] + part.count(kind))
        video, text_in, audio, text_out, speech = (
            slice(low, high) for low, high in zip([start, *edges[:-1]], edges, strict=True)
        )
        says = text_out.stop > text_out.start
        chunk = chunk_of.get(text_out.stop - 1) if speech.stop > speech.start else None
        result.append(
            MicroTurn(
                micro_turn=now,
                video=payloads.patches[slots.payload[video]] if video.stop > start else None,
                text_in=_read_text_in(token[text_in], config),
                audio=_read_audio(slots, payloads, audio, config),
                text_out=tuple(token[text_out][1:]) if says else None,
                speech=None
                if chunk is None
                else payloads.speech[slots.payload[speech]].reshape(config.mel_frames, -1),
                text_weight=float(targets.token_weight[text_out.start]) if says else 1.0,
                speech_weight=1.0 if chunk is None else float(targets.chunk_weight[chunk]),
            )
        )
    return result


def _read_text_in(tokens, config) -> tuple[TextIn, ...]:
    size = config.ordinary_tokens
    heads = [i for i, token in enumerate(tokens) if token >= size]
    return tuple(
        TextIn(Control(tokens[head] - size), tuple(tokens[head + 1 : stop]))
        for head, stop in itertools.pairwise([*heads, len(tokens)])
    )


def _read_audio(slots, payloads, part, config) -> tuple[AudioChunk, ...]:
    step = config.audio_frames
    return tuple(
        AudioChunk(payloads.audio[slots.payload[i : i + step]], int(slots.lateness[i]))
        for i in range(part.start, part.stop, step)
    )


def batch(
    wovens: Sequence[Woven], *, slots: int, audio: int, patches: int, speech: int, chunks: int
) -> Batch:
    """Pads sequences to static sizes and stacks them.

    Args:
        wovens: B sequences.
        slots: T.
        audio: rows of the audio table.
        patches: rows of the patch table (0: no video in this batch).
        speech: rows of the own-speech table.
        chunks: spoken chunks.

    Raises:
        ValueError: a sequence does not fit, naming what it has and what there is room for.
    """
    if not wovens:
        raise ValueError("batch needs at least one sequence")
    sizes = {
        "slots": (slots, [len(w.slots.stream) for w in wovens]),
        "audio": (audio, [len(w.payloads.audio) for w in wovens]),
        "patches": (patches, [len(w.payloads.patches) for w in wovens]),
        "speech": (speech, [len(w.payloads.speech) for w in wovens]),
        "chunks": (chunks, [len(w.targets.chunk) for w in wovens]),
    }
    for name, (room, needed) in sizes.items():
        if max(needed) > room:
            raise ValueError(
                f"sequence {int(np.argmax(needed))} has {max(needed)} {name}, {name}={room}"
            )

    def pad(arrays, length, fill=0):
        out = np.full((len(arrays), length, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return out

    def field(part, name, length, fill=0):
        return pad([getattr(getattr(w, part), name) for w in wovens], length, fill)

    return Batch(
        Slots(**{f.name: field("slots", f.name, slots) for f in dataclasses.fields(Slots)}),
        Payloads(
            audio=field("payloads", "audio", audio),
            patches=field("payloads", "patches", patches),
            speech=field("payloads", "speech", speech),
        ),
        Targets(
            token=field("targets", "token", slots, -1),
            token_weight=field("targets", "token_weight", slots),
            chunk_slot=field("targets", "chunk_slot", chunks),
            chunk=field("targets", "chunk", chunks),
            chunk_weight=field("targets", "chunk_weight", chunks),
        ),
    )


# ---------------------------------------------------------------- live: one micro-turn


def weave_inputs(
    per_lane: Sequence[LaneInput | None], config: WeaveConfig, *, slots: int, patches: int
) -> MicroturnInputs:
    """Lays out one micro-turn's input for every lane, padded to a static bucket.

    Args:
        per_lane: B lanes; None for a lane that holds no session.
        config: sizes and limits.
        slots: T of the bucket.
        patches: P of the bucket (0: no video).

    Returns:
        The step's arrays; each lane's slots are those that `weave` gives the input part of the
        same micro-turn and its BEGIN slot.

    Raises:
        ValueError: anything out of shape or over its limit, or a lane that does not fit.
    """
    lanes, chunks = len(per_lane), config.max_audio_chunks
    columns = {name: np.zeros((lanes, slots), np.int32) for name in _COLUMNS}
    waveform = np.zeros((lanes, chunks, config.samples), np.float32)
    chunk_time = np.full((lanes, chunks), -1, np.int32)
    tubelets = np.zeros((lanes, patches, *config.tubelet_shape), np.uint8)
    for lane, item in enumerate(per_lane):
        if item is None:
            continue
        layout = Layout(config)
        lateness = [item.micro_turn - time for time, _ in item.audio]
        layout.add_input(item.micro_turn, item.video, item.text_in, lateness)
        layout.add_begin()
        used = len(layout.stream)
        if used > slots:
            raise ValueError(f"lane {lane} needs {used} slots, slots={slots}")
        if layout.patch_rows > patches:
            raise ValueError(f"lane {lane} has {layout.patch_rows} patches, patches={patches}")
        for name, column in columns.items():
            column[lane, :used] = getattr(layout, name)
        if item.video is not None:
            tubelets[lane, : len(item.video)] = item.video
        for c, (time, samples) in enumerate(item.audio):
            if samples.shape != (config.samples,):
                raise ValueError(
                    f"lane {lane}: an audio chunk is {list(samples.shape)}, expected "
                    f"[{config.samples}]"
                )
            waveform[lane, c], chunk_time[lane, c] = samples, time
    return MicroturnInputs(
        **columns,
        waveform=waveform,
        chunk_time=chunk_time,
        patches=tubelets,
        active=np.array([item is not None for item in per_lane], bool),
    )


_COLUMNS = ("stream", "token", "payload", "lateness")
