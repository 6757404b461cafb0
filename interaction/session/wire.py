"""The messages of `docs/remote.md`, written and read on both sides of the wire.

In: `MicroTurnInput` and `OutputEvent`, or JSON values that came. Out: JSON values, or what they
say; sound is 16-bit PCM and frames are PNG, both in base64. A client reads events (what is wrong
with one is a `ConnectionError`); a server reads beginnings and inputs (`WireError`).
"""

import base64
import binascii
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from interaction.microturn import MICRO_TURN_SECONDS, output_seconds
from interaction.session.exchange import Kind, MicroTurnInput, OutputEvent
from interaction.streams.events import TextEvent, VideoFrames
from interaction.types import TEXT_SOURCES

PROTOCOL = 1
MAX_MESSAGE_BYTES = 2**26
_SCALE = 32_768
_SOURCES = {source.name.lower(): source for source in TEXT_SOURCES}


class WireError(ValueError):
    """A message that is not as the protocol says; names the field, what it is and what is due."""


@dataclasses.dataclass(frozen=True)
class Begin:
    """What a session begins with.

    Attributes:
        id: its name; seeds the session's noise.
        tools: names of the tools that may be called.
    """

    id: str = ""
    tools: tuple[str, ...] = ()


# ---------------------------------------------------------------- the client's side


def begin_message(
    *, sample_rate: int, tools: Mapping[str, Mapping[str, Any]], **named: Any
) -> dict[str, Any]:
    """The first message; `named` are suite, scene, id and seconds."""
    return {
        "type": "begin",
        "protocol": PROTOCOL,
        "sample_rate": sample_rate,
        "micro_turn_seconds": MICRO_TURN_SECONDS,
        **named,
        "tools": tools,
    }


def input_message(given: MicroTurnInput) -> dict[str, Any]:
    """A micro-turn's input as JSON values."""
    video = []
    if given.video is not None:
        for seconds, frame in zip(given.video.times, given.video.frames, strict=True):
            video.append({"seconds": float(seconds), "png": _png(frame)})
    return {
        "type": "input",
        "micro_turn": given.micro_turn,
        "ends": output_seconds(given.micro_turn),
        "audio": [{"micro_turn": int(at), "pcm": to_pcm(wave)} for at, wave in given.audio],
        "video": video,
        "text": [
            {"seconds": event.seconds, "source": event.source.name.lower(), "text": event.text}
            | ({"more": True} if event.more else {})
            for event in given.text
        ],
        "tool_results": list(given.tool_results),
    }


def read_event(event: Mapping[str, Any]) -> OutputEvent:
    """An event that came back.

    Raises:
        ConnectionError: it lacks something.
    """
    try:
        kind = Kind(event["kind"])
        payload: Any = from_pcm(event["pcm"]) if kind is Kind.AUDIO else event["payload"]
        if kind is Kind.TEXT and payload["channel"] not in ("say", "write"):
            raise ValueError(f"channel {payload['channel']!r} is neither say nor write")
        if kind is Kind.TEXT and not isinstance(payload["text"], str):
            raise ValueError(f"text {payload['text']!r} is no string")
        if kind is Kind.TOOL and not isinstance(payload.get("request", ""), str):
            raise ValueError(f"request {payload['request']!r} is no string")
        called = kind is Kind.TOOL and "request" not in payload
        if called and not (
            isinstance(payload["function"], str) and isinstance(payload["args"], dict)
        ):
            raise ValueError("a tool call is a function (string) and args (object)")
        if not math.isfinite(float(event["t"])):
            raise ValueError(f"t={event['t']!r} is no time")
        told = payload.get("forgotten_text", 1) if isinstance(payload, dict) else 1
        if kind is Kind.UI and (type(told) is not int or told < 1):
            raise ValueError(f"forgotten_text={told!r} is no number of slots")
        return OutputEvent(float(event["t"]), kind, payload)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConnectionError(
            f"an event is not as docs/remote.md says ({type(error).__name__}: {error}): "
            f"{str(event)[:200]}"
        ) from None


# ---------------------------------------------------------------- the server's side


def read_begin(message: Any, *, sample_rate: int) -> Begin:
    """The first message of a session.

    Raises:
        WireError: another protocol, sample rate or micro-turn, or a field of the wrong kind.
    """
    _due(message, "begin")
    spoken = {
        "protocol": PROTOCOL, "sample_rate": sample_rate, "micro_turn_seconds": MICRO_TURN_SECONDS,
    }  # fmt: skip
    for field, value in spoken.items():
        given = message.get(field)
        if isinstance(given, bool) or given != value:
            raise WireError(f"{field}={given!r} where {field}={value} is spoken")
    identity = _field(message, "id", str, "begin", "")
    _encodable(identity, "id")
    return Begin(identity, tuple(_field(message, "tools", dict, "begin", {})))


def read_input(message: Any, *, micro_turn: int, samples: int) -> MicroTurnInput:
    """One micro-turn's input.

    Args:
        message: as it came.
        micro_turn: the one that is due.
        samples: of a chunk of sound.

    Raises:
        WireError: another type or micro-turn, or a field that is not as `docs/remote.md` says.
    """
    _due(message, "input")
    given = _field(message, "micro_turn", int, "input")
    if given != micro_turn:
        raise WireError(f"micro_turn={given} where micro_turn={micro_turn} is due")
    ends = _number(message.get("ends", output_seconds(micro_turn)), "ends")
    if abs(ends - output_seconds(micro_turn)) > 1e-3:
        raise WireError(
            f"ends={ends} where micro_turn={micro_turn} ends at {output_seconds(micro_turn):.1f}"
        )
    results = _field(message, "tool_results", list, "input", [])
    for index, result in enumerate(results):
        if not isinstance(result, str):
            raise WireError(f"tool_results[{index}]={_short(result)} where a string is due")
        _encodable(result, f"tool_results[{index}]")
    return MicroTurnInput(
        micro_turn,
        audio=_read_audio(_field(message, "audio", list, "input", []), micro_turn, samples),
        video=_read_video(_field(message, "video", list, "input", [])),
        text=tuple(
            _read_text(each, f"text[{index}]")
            for index, each in enumerate(_field(message, "text", list, "input", []))
        ),
        tool_results=tuple(results),
    )


def output_message(micro_turn: int, events: Sequence[OutputEvent]) -> dict[str, Any]:
    """What was put out in a micro-turn as JSON values."""
    return {
        "type": "output",
        "micro_turn": micro_turn,
        "events": [
            {"t": event.t, "kind": event.kind.value}
            | (
                {"pcm": to_pcm(event.payload)}
                if event.kind is Kind.AUDIO
                else {"payload": event.payload}
            )
            for event in events
        ],
    }


def _read_audio(given: list, now: int, samples: int) -> tuple[tuple[int, np.ndarray], ...]:
    chunks = []
    for index, chunk in enumerate(given):
        where = f"audio[{index}]"
        at = _field(chunk, "micro_turn", int, where)
        if not 0 <= at <= now or at in (other for other, _ in chunks):
            raise WireError(f"{where}.micro_turn={at} where one of 0..{now}, each once, is due")
        try:
            wave = from_pcm(_field(chunk, "pcm", str, where))
        except (binascii.Error, ValueError) as error:
            if isinstance(error, WireError):
                raise
            raise WireError(f"{where}.pcm is no base64 of 16-bit samples: {error}") from None
        if len(wave) != samples:
            raise WireError(f"{where}.pcm has {len(wave)} samples where {samples} are due")
        chunks.append((at, wave))
    return tuple(chunks)


def _read_video(given: list) -> VideoFrames | None:
    times, frames = [], []
    for index, each in enumerate(given):
        where = f"video[{index}]"
        times.append(_number(_field(each, "seconds", (int, float), where), f"{where}.seconds"))
        if times[-1] < max(0.0, *times):
            raise WireError(f"{where}.seconds={times[-1]} where at least {max(0.0, *times)} is due")
        png = _field(each, "png", str, where)
        try:
            with PIL.Image.open(io.BytesIO(base64.b64decode(png, validate=True))) as picture:
                frames.append(np.asarray(picture.convert("RGB")))
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
            raise WireError(f"{where}.png is no picture: {error}") from None
        if frames[-1].shape != frames[0].shape:
            raise WireError(
                f"{where}.png is {list(frames[-1].shape)} where {list(frames[0].shape)} is due"
            )
    return VideoFrames(np.array(times), np.stack(frames)) if frames else None


def _read_text(given: Any, where: str) -> TextEvent:
    seconds = _number(_field(given, "seconds", (int, float), where), f"{where}.seconds")
    source = _field(given, "source", str, where)
    if source not in _SOURCES:
        raise WireError(f"{where}.source={source!r} where one of {', '.join(_SOURCES)} is due")
    text = _field(given, "text", str, where)
    _encodable(text, f"{where}.text")
    more = _field(given, "more", bool, where, False)
    return TextEvent(seconds, _SOURCES[source], text, more)


# ---------------------------------------------------------------- fields and payloads


def _due(message: Any, kind: str) -> None:
    found = message.get("type") if isinstance(message, dict) else message
    if not isinstance(message, dict) or found != kind:
        raise WireError(f"type={_short(found)} where type={kind!r} is due")


def _field(given: Any, name: str, kind: type | tuple, where: str, default: Any = None) -> Any:
    """A field of the right kind; without a default it has to be there."""
    if not isinstance(given, dict):
        raise WireError(f"{where}={_short(given)} where an object is due")
    value = given.get(name, default)
    wanted = kind if isinstance(kind, tuple) else (kind,)
    # To Python a boolean is a number; to JSON it is none.
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        due = " or ".join(_JSON_NAMES[each] for each in wanted)
        raise WireError(f"{where}.{name}={_short(value)} where {due} is due")
    return value


_JSON_NAMES = {
    str: "a string", dict: "an object", list: "a list", bool: "true or false",
    int: "a whole number", float: "a number",
}  # fmt: skip


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, int | float) and math.isfinite(value) and not isinstance(value, bool):
            return float(value)
    except OverflowError:  # a whole number beyond floating point
        pass
    raise WireError(f"{where}={_short(value)} where a number is due")


def _encodable(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WireError(f"{where} is no text: {error.reason}") from None


def _short(value: Any) -> str:
    return repr(value)[:100]


def to_pcm(samples: np.ndarray) -> str:
    """Base64 of little-endian 16-bit samples."""
    steps = np.clip(np.rint(np.asarray(samples, np.float64) * _SCALE), -_SCALE, _SCALE - 1)
    return base64.b64encode(steps.astype("<i2").tobytes()).decode("ascii")


def from_pcm(text: str) -> np.ndarray:
    """float32 samples of what `to_pcm` makes."""
    return (np.frombuffer(base64.b64decode(text, validate=True), "<i2") / _SCALE).astype(np.float32)


def _png(frame: np.ndarray) -> str:
    encoded = io.BytesIO()
    PIL.Image.fromarray(frame).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode("ascii")
