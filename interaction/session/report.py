"""What remains of a session: sound, a picture and a page.

In: a `SessionRecord`. Out, in one folder: ``answer.wav`` (the model at playback times),
``conversation.wav`` (left: what was heard, right: the model, same time axis), ``timeline.png``,
and ``report.html``, which holds all of it in one file and asks no network for anything.
"""

import dataclasses
import html
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import soundfile

from interaction.microturn import MICRO_TURN_SECONDS, start_seconds
from interaction.session.page import data_url, json_inside, page
from interaction.session.record import MicroTurnRecord, SessionRecord
from interaction.session.summary import (
    BUDGET_MILLISECONDS,
    FLOOR_DB,
    Summary,
    TrueEvent,
    conversation,
    level_db,
    summarise,
    words,
)
from interaction.session.timeline_picture import draw_timeline

ENVELOPE_RATE = 100
THUMBNAIL_HEIGHT = 132
PICTURE_DPI = 120


@dataclasses.dataclass(frozen=True)
class ReportFiles:
    """Where the parts of a report lie."""

    answer: pathlib.Path
    conversation: pathlib.Path
    timeline: pathlib.Path
    page: pathlib.Path


def write_report(
    record: SessionRecord,
    out_dir: str | pathlib.Path,
    *,
    title: str,
    inputs: Mapping[str, str],
    true_events: Sequence[TrueEvent] | None = None,
) -> ReportFiles:
    """Write the sound, the picture and the page of a session.

    Args:
        record: the session; at least one micro-turn.
        out_dir: folder, made if absent; files of the same names are replaced.
        title: over picture and page.
        inputs: what went in, name to description (file, source, licence).
        true_events: what is known to be in the input, to stand beside what the model made of it.

    Raises:
        ValueError: `record` holds no micro-turn.
    """
    if not record.micro_turns:
        raise ValueError("record.micro_turns is empty: there is nothing to report")
    folder = pathlib.Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files = ReportFiles(
        answer=folder / "answer.wav",
        conversation=folder / "conversation.wav",
        timeline=folder / "timeline.png",
        page=folder / "report.html",
    )
    events = tuple(true_events or ())
    # Rounded once, so that the page's players hold the very samples of the files.
    sound_W2 = np.rint(np.clip(conversation(record), -1.0, 1.0) * 32767).astype(np.int16)
    soundfile.write(files.answer, sound_W2[:, 1], record.sample_rate)
    soundfile.write(files.conversation, sound_W2, record.sample_rate)
    figure = draw_timeline(record, title=title, true_events=events)
    figure.savefig(files.timeline, dpi=PICTURE_DPI)
    text = _page(record, sound_W2, files.timeline.read_bytes(), title, inputs, events)
    files.page.write_text(text, encoding="utf-8")
    return files


def _page(
    record: SessionRecord,
    sound_W2: np.ndarray,
    picture: bytes,
    title: str,
    inputs: Mapping[str, str],
    events: Sequence[TrueEvent],
) -> str:
    summary = summarise(record)
    pace = {
        "real": "one micro-turn every 200 ms of real time",
        "simulated": "simulated clock, measured step time",
    }.get(record.pace, record.pace)
    rows = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in {"checkpoint": record.checkpoint, **inputs}.items()
    )
    return page(
        "interaction.session",
        "report_page",
        title=title,
        subtitle=html.escape(f"{record.checkpoint} · {pace}"),
        tiles=_tiles(summary),
        inputs="".join(rows),
        conversation=_sound_url(sound_W2, record.sample_rate),
        answer=_sound_url(sound_W2[:, 1], record.sample_rate),
        picture=data_url("image/png", picture),
        data=json_inside(_data(record, sound_W2, summary, events)),
    )


def _tiles(summary: Summary) -> str:
    budget = f"{BUDGET_MILLISECONDS:.0f}"
    tiles = (
        (f"{summary.median_milliseconds:.1f} ms", f"median step, of {budget}", False),
        (f"{summary.p99_milliseconds:.1f} ms", f"99th percentile, of {budget}", False),
        (f"{summary.over_budget}", f"of {summary.micro_turns} steps over {budget} ms", True),
        (f"{summary.late_chunks}", "chunks of sound came late", True),
        (f"{summary.dropped_chunks}", "came too late to be heard", True),
        (f"{summary.seconds:.1f} s", "session", False),
        (f"{summary.spoken_seconds:.1f} s", "of it the model speaks", False),
        (f"{summary.forgotten_text}", "slots of text forgotten", True),
    )
    return "".join(
        f'<div class="tile{" bad" if alarm and value != "0" else ""}">'
        f"<b>{value}</b><span>{text}</span></div>"
        for value, text, alarm in tiles
    )


def _data(
    record: SessionRecord, sound_W2: np.ndarray, summary: Summary, events: Sequence[TrueEvent]
) -> dict[str, Any]:
    """What the page's script draws; times in seconds, sound as pairs of -127..127."""
    return {
        "seconds": max(summary.seconds, start_seconds(record.micro_turns[-1].micro_turn + 1)),
        "microTurn": MICRO_TURN_SECONDS,
        "budget": round(BUDGET_MILLISECONDS),
        "floor": FLOOR_DB,
        "envelope": {
            "rate": ENVELOPE_RATE,
            "heard": _envelope(sound_W2[:, 0], record.sample_rate),
            "spoken": _envelope(sound_W2[:, 1], record.sample_rate),
        },
        "turns": [_turn(m) for m in record.micro_turns],
        "words": [
            {"t": round(w.seconds, 3), "channel": w.channel.value, "text": w.text}
            for w in words(record)
        ],
        "events": [
            {"start": e.start_seconds, "end": e.end_seconds, "label": e.label} for e in events
        ],
        "thumbnails": _thumbnails(record.micro_turns),
    }


def _turn(turn: MicroTurnRecord) -> dict[str, Any]:
    return {
        "m": turn.micro_turn,
        "start": round(start_seconds(turn.micro_turn), 3),
        "heardDb": round(level_db(turn.heard_audio), 1),
        "late": max(turn.lateness, default=0),
        "dropped": turn.dropped,
        "forgotten": turn.forgotten_text,
        "video": turn.video_frame is not None,
        "textIn": list(turn.text_in),
        "written": turn.written,
        "said": turn.said,
        "delegated": turn.delegated,
        "closer": turn.closer,
        "spokenDb": round(level_db(turn.spoken_audio), 1),
        "play": round(turn.play_start_seconds, 3),
        "ms": round(turn.step_milliseconds, 2),
    }


def _envelope(samples_W: np.ndarray, rate: int) -> list[int]:
    """Least and largest sample of every 10 ms, alternating, scaled so that the peak is 127."""
    bucket = rate // ENVELOPE_RATE
    padded = np.pad(samples_W / 32767, (0, -len(samples_W) % bucket)).reshape(-1, bucket)
    peak = max(0.05, float(np.abs(padded).max(initial=0.0)))
    pairs = np.stack([padded.min(1), padded.max(1)], axis=1) * (127 / peak)
    return np.rint(pairs).astype(int).ravel().tolist()


def _thumbnails(turns: Sequence[MicroTurnRecord]) -> dict[str, Any] | None:
    """Up to 120 frames side by side in one picture, with the time of each."""
    seen = [(start_seconds(m.micro_turn), m.video_frame) for m in turns]
    frames = [(seconds, frame) for seconds, frame in seen if frame is not None]
    if not frames:
        return None
    frames = frames[:: -(-len(frames) // 120)]
    height, width = frames[0][1].shape[:2]
    size = (max(1, round(THUMBNAIL_HEIGHT * width / height)), THUMBNAIL_HEIGHT)
    strip = PIL.Image.new("RGB", (size[0] * len(frames), size[1]))
    for index, (_, frame) in enumerate(frames):
        small = PIL.Image.fromarray(frame).resize(size, PIL.Image.Resampling.LANCZOS)
        strip.paste(small, (index * size[0], 0))
    encoded = io.BytesIO()
    strip.save(encoded, "JPEG", quality=82)
    return {
        "width": size[0],
        "height": size[1],
        "times": [round(seconds, 3) for seconds, _ in frames],
        "sprite": data_url("image/jpeg", encoded.getvalue()),
    }


def _sound_url(samples: np.ndarray, rate: int) -> str:
    """FLAC: half of WAV's size, exact, and every current browser plays it."""
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate, format="FLAC")
    return data_url("audio/flac", encoded.getvalue())
