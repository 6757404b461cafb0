"""A session as one record of a shard, and back.

In: the micro-turns of a session, as `streams.weave.weave` takes them. Out: bytes, and from them the
same micro-turns, bit for bit. A record is a table of columns in the safetensors format (one array
per field, with counts where a micro-turn holds several), its header carrying where the session
came from; the same session always gives the same bytes.
"""

import itertools
import json
from collections.abc import Sequence

import numpy as np
from safetensors.numpy import load, save

from interaction.types import AudioChunk, Control, MicroTurn, TextIn

_NONE = -1  # count of something that is not there, as against there and empty
_ONE_EACH = ("micro_turn", "speaks", "text_weight", "speech_weight")


def encode(turns: Sequence[MicroTurn], origin: str = "") -> bytes:
    """The record of a session.

    Args:
        turns: its micro-turns.
        origin: where it came from, for people to read.
    """
    chunks = [chunk for turn in turns for chunk in turn.audio]
    pieces = [piece for turn in turns for piece in turn.text_in]
    videos = [turn.video for turn in turns if turn.video is not None]
    speech = [turn.speech for turn in turns if turn.speech is not None]
    columns = {
        "micro_turn": _whole([turn.micro_turn for turn in turns]),
        "audio_count": _whole([len(turn.audio) for turn in turns]),
        "audio_bins": np.array([c.bins for c in chunks], np.uint8),
        "audio_lateness": _whole([c.lateness for c in chunks]),
        "text_in_count": _whole([len(turn.text_in) for turn in turns]),
        "text_in_source": _whole([int(piece.source) for piece in pieces]),
        "text_in_length": _whole([len(piece.tokens) for piece in pieces]),
        "text_in": _whole([token for piece in pieces for token in piece.tokens]),
        "video_count": _whole([_NONE if t.video is None else len(t.video) for t in turns]),
        "video": np.concatenate(videos) if videos else np.zeros(0, np.uint8),
        "text_out_count": _whole([_NONE if t.text_out is None else len(t.text_out) for t in turns]),
        "text_out": _whole([token for turn in turns for token in turn.text_out or ()]),
        "text_weight": np.array([turn.text_weight for turn in turns], np.float64),
        "speech_weight": np.array([turn.speech_weight for turn in turns], np.float64),
        "speaks": np.array([turn.speech is not None for turn in turns], np.uint8),
        "speech": np.array(speech, np.float32),
    }
    return save(columns, metadata={"origin": origin})


def _whole(values) -> np.ndarray:
    return np.array(values, np.int32)


def decode(record: bytes) -> list[MicroTurn]:
    """The micro-turns of a record."""
    columns = load(record)
    audio = _taken(columns["audio_count"])
    pieces, tokens = _taken(columns["text_in_count"]), _taken(columns["text_in_length"])
    videos, outputs = _taken(columns["video_count"]), _taken(columns["text_out_count"])
    text_in, text_out = columns["text_in"].tolist(), columns["text_out"].tolist()
    lateness, sources = columns["audio_lateness"].tolist(), columns["text_in_source"].tolist()
    speech = iter(columns["speech"])
    return [
        MicroTurn(
            micro_turn=now,
            video=None if videos[turn] is None else columns["video"][videos[turn]],
            text_in=tuple(
                TextIn(Control(sources[i]), tuple(text_in[tokens[i]])) for i in _range(pieces[turn])
            ),
            audio=tuple(
                AudioChunk(columns["audio_bins"][i], lateness[i]) for i in _range(audio[turn])
            ),
            text_out=None if outputs[turn] is None else tuple(text_out[outputs[turn]]),
            speech=next(speech) if spoken else None,
            text_weight=text_weight,
            speech_weight=speech_weight,
        )
        for turn, (now, spoken, text_weight, speech_weight) in enumerate(
            zip(*(columns[name].tolist() for name in _ONE_EACH), strict=True)
        )
    ]


def _taken(counts: np.ndarray) -> list:
    """Each one's slice of what all share; None where the count says that there is nothing."""
    ends = np.cumsum(np.maximum(counts, 0)).tolist()
    slices = [slice(start, end) for start, end in itertools.pairwise([0, *ends])]
    return [None if n == _NONE else part for n, part in zip(counts.tolist(), slices, strict=True)]


def _range(part: slice) -> range:
    return range(part.start, part.stop)


def origin(record: bytes) -> str:
    """Where the session of a record came from."""
    length = int.from_bytes(record[:8], "little")
    return json.loads(record[8 : 8 + length])["__metadata__"]["origin"]
