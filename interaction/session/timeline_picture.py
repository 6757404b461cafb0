"""A session as one picture.

In: a `SessionRecord` and what is known to be in its input. Out: a matplotlib `Figure` of staves,
16 s each at most: video, what was heard (waveform and spectrogram), the words, what the model says
(waveform and spectrogram), and the milliseconds of every step against 200.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure

from interaction.microturn import MICRO_TURN_SECONDS, start_seconds
from interaction.session.record import MicroTurnRecord, SessionRecord
from interaction.session.summary import (
    BUDGET_MILLISECONDS,
    Channel,
    TrueEvent,
    Word,
    conversation,
    step_milliseconds,
    summarise,
    words,
)

STAVE_SECONDS = 16.0
SHORTEST_STAVE_SECONDS = 4.0
INCHES_PER_SECOND = 1.0
THUMBNAIL_SECONDS = 0.8

HEARD, SPOKEN, GREY, INK = "#2563eb", "#d9620a", "#9aa3b2", "#1f2937"
CHANNEL_COLOUR = {
    Channel.TEXT_IN: "#0e7490",
    Channel.WRITE: "#15803d",
    Channel.SAY: SPOKEN,
    Channel.DELEGATE: "#7c3aed",
    Channel.FORGOTTEN: "#dc2626",
}
READS_AS = {
    Channel.TEXT_IN: "reads",
    Channel.WRITE: "writes",
    Channel.SAY: "says",
    Channel.DELEGATE: "delegates",
    Channel.FORGOTTEN: "forgets",
}
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_timeline(
    record: SessionRecord, *, title: str, true_events: Sequence[TrueEvent] = ()
) -> Figure:
    """The picture; ``figure.savefig`` writes it.

    Args:
        record: the session.
        title: over the picture.
        true_events: what is known to be in the input; shaded behind the heard sound.
    """
    summary = summarise(record)
    total = max(summary.seconds, MICRO_TURN_SECONDS * len(record.micro_turns))
    staves = max(1, int(np.ceil(total / STAVE_SECONDS - 1e-6)))
    length = max(SHORTEST_STAVE_SECONDS, float(np.ceil(total / staves - 1e-6)))
    video = any(m.video_frame is not None for m in record.micro_turns)
    sound_W2 = conversation(record)
    with mpl.rc_context(STYLE):
        height = 5.6 if video else 4.7
        figure = Figure(
            figsize=(max(9.0, 1.8 + INCHES_PER_SECOND * length), 0.7 + height * staves),
            layout="constrained",
        )
        figure.suptitle(
            f"{title}\nstep: median {summary.median_milliseconds:.1f} ms, "
            f"p99 {summary.p99_milliseconds:.1f} ms of {BUDGET_MILLISECONDS:.0f}",
            fontsize=11,
        )
        parts = np.ravel(figure.subfigures(staves, 1, squeeze=False))
        for index, part in enumerate(parts):
            span = (index * length, (index + 1) * length)
            _stave(part, record, sound_W2, span, video, true_events)
    return figure


def _stave(
    part: SubFigure,
    record: SessionRecord,
    sound_W2: np.ndarray,
    span: tuple[float, float],
    video: bool,
    true_events: Sequence[TrueEvent],
) -> None:
    heights = {"seen": 1.0, "heard": 1.0, "hears": 0.8, "text": 1.3, "says": 0.8, "speaks": 1.0}
    heights["step"] = 0.8
    if not video:
        del heights["seen"]
    rows = part.subplots(
        len(heights), 1, sharex=True, gridspec_kw={"height_ratios": list(heights.values())}
    )
    axes = dict(zip(heights, rows, strict=True))
    turns = [m for m in record.micro_turns if span[0] <= start_seconds(m.micro_turn) < span[1]]
    if video:
        _thumbnails(axes["seen"], turns)
    for side, (wave, bands, colour, dark) in enumerate(
        (("heard", "hears", HEARD, "#0b1d4d"), ("speaks", "says", SPOKEN, "#4a1c02"))
    ):
        _waveform(axes[wave], sound_W2[:, side], record.sample_rate, span, colour)
        shades = LinearSegmentedColormap.from_list(bands, ["white", colour, dark])
        _spectrogram(axes[bands], sound_W2[:, side], record.sample_rate, span, shades)
    _name(axes["heard"], "heard", HEARD)
    _name(axes["speaks"], "spoken", SPOKEN)
    _true_events(axes["heard"], true_events, span)
    found = words(record)
    forgets = any(w.channel is Channel.FORGOTTEN for w in found)
    channels = [c for c in Channel if forgets or c is not Channel.FORGOTTEN]
    _words(axes["text"], [w for w in found if span[0] <= w.seconds < span[1]], channels)
    _steps(axes["step"], turns)
    for axis in rows:
        axis.set_xlim(*span)
        axis.tick_params(axis="x", length=0)
    rows[-1].tick_params(axis="x", length=3)
    rows[-1].set_xticks(np.arange(np.ceil(span[0]), span[1] + 0.01, 1.0))
    rows[-1].set_xlabel("session time, seconds (0.2 s a micro-turn)")


def _name(axis: Axes, text: str, colour: str = INK) -> None:
    axis.set_ylabel(
        text, rotation=0, ha="right", va="center", color=colour, fontweight="bold", labelpad=8
    )
    axis.set_yticks([])


def _thumbnails(axis: Axes, turns: Sequence[MicroTurnRecord]) -> None:
    """One frame every 0.8 s, standing at its own time."""
    _name(axis, "seen")
    axis.spines[:].set_visible(False)
    axis.set_ylim(0, 1)
    free = -np.inf
    for turn in turns:
        start = start_seconds(turn.micro_turn)
        if turn.video_frame is None or start < free - 1e-6:
            continue
        frame = turn.video_frame
        width = min(THUMBNAIL_SECONDS * 0.96, INCHES_PER_SECOND * frame.shape[1] / frame.shape[0])
        axis.imshow(frame, extent=(start, start + width, 0, 1), aspect="auto", zorder=2)
        free = start + THUMBNAIL_SECONDS


def _waveform(
    axis: Axes, samples_W: np.ndarray, rate: int, span: tuple[float, float], colour: str
) -> None:
    part = samples_W[round(span[0] * rate) : round(span[1] * rate)]
    bucket = max(1, round(rate * (span[1] - span[0]) / 2400))
    part = np.pad(part, (0, -len(part) % bucket)).reshape(-1, bucket)
    seconds = span[0] + (np.arange(len(part)) + 0.5) * bucket / rate
    peak = max(0.05, float(np.abs(samples_W).max(initial=0.0)))
    axis.fill_between(
        seconds, part.min(1, initial=0.0), part.max(1, initial=0.0), color=colour, linewidth=0.4
    )
    axis.set_ylim(-1.1 * peak, 1.1 * peak)


def _spectrogram(
    axis: Axes,
    samples_W: np.ndarray,
    rate: int,
    span: tuple[float, float],
    shades: Colormap,
) -> None:
    """Log power, 25 ms windows every 10 ms, 60 dB of range, up to 8 kHz."""
    hop, width = rate // 100, rate // 40
    part = samples_W[round(span[0] * rate) : round(span[1] * rate)]
    part = np.pad(part, (0, max(0, round((span[1] - span[0]) * rate) - len(part) + width)))
    frames = np.lib.stride_tricks.sliding_window_view(part, width)[::hop] * np.hanning(width)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    decibels = 10 * np.log10(power + 1e-7).T
    axis.imshow(
        decibels,
        origin="lower",
        aspect="auto",
        cmap=shades,
        vmin=-30,
        vmax=30,
        extent=(span[0], span[0] + decibels.shape[1] * hop / rate, 0, rate / 2000),
    )
    axis.set_yticks([0, rate // 4000, rate // 2000])
    axis.set_ylabel("kHz", color=GREY, fontsize=8)


def _true_events(axis: Axes, events: Sequence[TrueEvent], span: tuple[float, float]) -> None:
    top = axis.get_ylim()[1]
    for event in events:
        if event.end_seconds < span[0] or event.start_seconds >= span[1]:
            continue
        axis.axvspan(
            max(span[0], event.start_seconds),
            min(span[1], max(event.end_seconds, event.start_seconds + 0.02)),
            color=HEARD,
            alpha=0.12,
            linewidth=0,
        )
        place = max(span[0], event.start_seconds)
        axis.text(place, top, event.label, color=HEARD, va="bottom", ha="left", fontsize=8)


def _words(axis: Axes, found: Sequence[Word], channels: Sequence[Channel]) -> None:
    """One line per channel; a word that would touch the one before it steps down half a line."""
    axis.set_yticks([])
    axis.set_ylim(-len(channels), 0.6)
    axis.grid(axis="x", color="#eef0f4", linewidth=0.8)
    axis.set_axisbelow(True)
    for row, channel in enumerate(channels):
        colour = CHANNEL_COLOUR[channel]
        axis.text(
            -0.007,
            -row,
            READS_AS[channel],
            transform=axis.get_yaxis_transform(),
            color=colour,
            fontsize=8.5,
            fontweight="bold",
            ha="right",
            va="center",
        )
        free, lower = -np.inf, False
        for word in (w for w in found if w.channel is channel):
            lower = word.seconds < free and not lower
            axis.plot([word.seconds], [-row], "|", color=colour, markersize=7)
            axis.text(
                word.seconds + 0.03,
                -row - (0.42 if lower else 0),
                _escaped(word.text),
                color=colour,
                fontsize=8.5,
                fontweight="bold",
                va="center",
                clip_on=True,
            )
            free = word.seconds + 0.09 * len(word.text) + 0.05


def _escaped(text: str) -> str:
    """`text` so that matplotlib draws it as it stands."""
    printable = "".join(c if c.isprintable() else "�" for c in text)
    return printable.replace("$", r"\$")


def _steps(axis: Axes, turns: Sequence[MicroTurnRecord]) -> None:
    times = step_milliseconds(turns)
    starts = [start_seconds(m.micro_turn) for m in turns]
    colours = ["#dc2626" if t > BUDGET_MILLISECONDS else "#4d7c0f" for t in times]
    axis.bar(starts, times, width=0.17, align="edge", color=colours)
    axis.axhline(BUDGET_MILLISECONDS, color="#dc2626", linewidth=0.8, linestyle=(0, (4, 3)))
    axis.set_ylim(0, max(1.15 * BUDGET_MILLISECONDS, 1.05 * times.max(initial=0.0)))
    axis.set_yticks([0, 100, 200])
    axis.set_ylabel("ms per\nstep", rotation=0, ha="right", va="center", fontweight="bold")
