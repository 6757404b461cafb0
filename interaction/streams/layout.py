"""The order of slots inside a micro-turn, and the checks of what goes into them.

In: one micro-turn's streams and `WeaveConfig`. Out: `Layout`, lists of slot columns that `weave`
(training) and `weave_inputs` (live) both build on, so that there is one layout code.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from interaction.shapes import Float, UInt8
from interaction.types import CLOSERS, TEXT_SOURCES, Control, MicroTurn, Stream

_VIDEO, _TEXT_IN, _AUDIO = int(Stream.VIDEO), int(Stream.TEXT_IN), int(Stream.AUDIO)
_TEXT_OUT, _SPEECH = int(Stream.TEXT_OUT), int(Stream.SPEECH)
_SOURCES = frozenset(int(source) for source in TEXT_SOURCES)


@dataclasses.dataclass(frozen=True)
class WeaveConfig:
    """Sizes that the layout depends on.

    Attributes:
        ordinary_tokens: ids below are ordinary, control token `X` has id `ordinary_tokens + X`.
        audio_frames: AUDIO slots of one heard chunk.
        mel_frames: R, mel frames of one spoken chunk.
        mel_bands: Z, mel channels of a spoken frame.
        speech_slots: SPEECH slots of one spoken chunk; divides `mel_frames`.
        patch: pixels on a side of a video patch.
        tubelet_frames: frames of a tubelet.
        max_patches: P, VIDEO slots of a micro-turn at most.
        max_text_in: TEXT_IN slots of a micro-turn at most, source tokens included.
        max_text_out: U, output ids of a micro-turn at most, the closer included.
        max_audio_chunks: C, heard chunks of a micro-turn at most, late ones included.
        max_lateness: the latest that a heard chunk may be, in micro-turns.
        audio_bands: bands of a heard frame.
        audio_levels: levels of a heard band.
        samples: W, samples of one heard chunk.
    """

    ordinary_tokens: int = 256
    audio_frames: int = 4
    mel_frames: int = 16
    mel_bands: int = 80
    speech_slots: int = 2
    patch: int = 40
    tubelet_frames: int = 2
    max_patches: int = 4
    max_text_in: int = 16
    max_text_out: int = 12
    max_audio_chunks: int = 2
    max_lateness: int = 3
    audio_bands: int = 80
    audio_levels: int = 16
    samples: int = 3_200

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("max_patches", "max_text_in", "max_lateness") else 1
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{field.name}={value!r} must be a whole number >= {least}")
        if self.mel_frames % self.speech_slots:
            raise ValueError(
                f"speech_slots={self.speech_slots} does not divide mel_frames={self.mel_frames}"
            )
        if self.samples % self.audio_frames:
            raise ValueError(
                f"audio_frames={self.audio_frames} does not divide samples={self.samples}"
            )

    @property
    def speech_features(self) -> int:
        """Numbers in one SPEECH slot."""
        return self.mel_frames // self.speech_slots * self.mel_bands

    @property
    def tubelet_shape(self) -> tuple[int, int, int, int]:
        """Shape of one video patch."""
        return (self.tubelet_frames, self.patch, self.patch, 3)

    @property
    def max_input_slots(self) -> int:
        """Slots of one micro-turn's input at most, its BEGIN slot included."""
        return self.max_patches + self.max_text_in + self.max_audio_chunks * self.audio_frames + 1

    @property
    def max_slots(self) -> int:
        """Slots of one whole micro-turn at most."""
        return self.max_input_slots + self.max_text_out + self.speech_slots

    def control(self, control: Control) -> int:
        """Id of a control token."""
        return self.ordinary_tokens + int(control)


class Layout:
    """Slots laid out so far; the only place that knows the order of a micro-turn's input."""

    def __init__(self, config: WeaveConfig):
        self.config = config
        self.stream: list[int] = []
        self.token: list[int] = []
        self.payload: list[int] = []
        self.lateness: list[int] = []
        self.audio_rows = 0
        self.patch_rows = 0
        self.speech_rows = 0

    def _add(self, stream, tokens=None, rows=None, lateness=0):
        count = len(tokens or rows or ())
        self.stream += [stream] * count
        self.token += [0] * count if tokens is None else tokens
        self.payload += [0] * count if rows is None else rows
        self.lateness += [lateness] * count

    def add_input(self, micro_turn: int, video, text_in, lateness: Sequence[int]) -> None:
        """The input part of a micro-turn: video, text in, audio (one lateness per chunk)."""
        config = self.config
        if video is not None:
            self._check_video(micro_turn, video)
            rows = self.patch_rows + len(video)
            self._add(_VIDEO, rows=list(range(self.patch_rows, rows)))
            self.patch_rows = rows
        if text_in:
            self._add(_TEXT_IN, tokens=self._text_in_tokens(micro_turn, text_in))
        if len(lateness) > config.max_audio_chunks:
            raise ValueError(
                f"micro-turn {micro_turn}: {len(lateness)} audio chunks, more than "
                f"max_audio_chunks={config.max_audio_chunks}"
            )
        for late in lateness:
            if not 0 <= late <= config.max_lateness:
                raise ValueError(
                    f"micro-turn {micro_turn}: lateness={late} of an audio chunk is not in "
                    f"0..max_lateness={config.max_lateness}"
                )
            rows = self.audio_rows + config.audio_frames
            self._add(_AUDIO, rows=list(range(self.audio_rows, rows)), lateness=int(late))
            self.audio_rows = rows

    def add_begin(self) -> None:
        """The slot that asks for the micro-turn's output."""
        self._add(_TEXT_OUT, tokens=[self.config.control(Control.BEGIN)])

    def add_text_out(self, tokens: list[int]) -> None:
        """Output ids, the closer last."""
        self._add(_TEXT_OUT, tokens=tokens)

    def add_speech(self) -> None:
        """The own-speech slots of one chunk."""
        rows = self.speech_rows + self.config.speech_slots
        self._add(_SPEECH, rows=list(range(self.speech_rows, rows)))
        self.speech_rows = rows

    def _check_video(self, micro_turn, video):
        config = self.config
        if video.shape[1:] != config.tubelet_shape or video.dtype != np.uint8:
            raise ValueError(
                f"micro-turn {micro_turn}: video is {video.dtype}{list(video.shape)}, expected "
                f"uint8 [P, {', '.join(map(str, config.tubelet_shape))}]"
            )
        if not 1 <= len(video) <= config.max_patches:
            raise ValueError(
                f"micro-turn {micro_turn}: {len(video)} video patches, allowed are "
                f"1..max_patches={config.max_patches} (None for no video)"
            )

    def _text_in_tokens(self, micro_turn, text_in):
        config, tokens = self.config, []
        for text in text_in:
            if int(text.source) not in _SOURCES:
                raise ValueError(
                    f"micro-turn {micro_turn}: text_in source {text.source!r} is not one of "
                    f"{[source.name for source in TEXT_SOURCES]}"
                )
            if text.tokens and not (
                min(text.tokens) >= 0 and max(text.tokens) < config.ordinary_tokens
            ):
                raise ValueError(
                    f"micro-turn {micro_turn}: text_in ids lie in {min(text.tokens)}.."
                    f"{max(text.tokens)}, ordinary ids in 0..{config.ordinary_tokens - 1}"
                )
            tokens.append(config.control(text.source))
            tokens.extend(map(int, text.tokens))
        if len(tokens) > config.max_text_in:
            raise ValueError(
                f"micro-turn {micro_turn}: text_in takes {len(tokens)} slots, more than "
                f"max_text_in={config.max_text_in}"
            )
        return tokens


def checked_bins(micro_turn, bins, config) -> UInt8[np.ndarray, "frames bands"]:
    """`bins` of one heard chunk, uint8 ``[4, 80]``; their range is checked for all at once."""
    if bins.shape != (config.audio_frames, config.audio_bands) or bins.dtype != np.uint8:
        raise ValueError(
            f"micro-turn {micro_turn}: audio bins are {bins.dtype}{list(bins.shape)}, expected "
            f"uint8 [{config.audio_frames}, {config.audio_bands}]"
        )
    return bins


def checked_text_out(micro_turn, text_out, config) -> list[int]:
    """Output ids of a micro-turn: in range, one closer, at the end."""
    tokens, size = [int(token) for token in text_out], config.ordinary_tokens
    closers = range(size + CLOSERS[0], size + CLOSERS[-1] + 1)
    if not tokens or tokens[-1] not in closers:
        raise ValueError(
            f"micro-turn {micro_turn}: text_out {tokens} does not end with a closer, one of ids "
            f"{list(closers)}"
        )
    if len(tokens) > config.max_text_out:
        raise ValueError(
            f"micro-turn {micro_turn}: text_out has {len(tokens)} ids, more than "
            f"max_text_out={config.max_text_out}"
        )
    if min(tokens) < 0 or max(tokens) >= size + len(Control):
        raise ValueError(
            f"micro-turn {micro_turn}: text_out ids lie in {min(tokens)}..{max(tokens)}, allowed "
            f"are 0..{size + len(Control) - 1}"
        )
    if any(token in closers for token in tokens[:-1]):
        raise ValueError(f"micro-turn {micro_turn}: text_out {tokens} goes on after its closer")
    return tokens


def speaks(item: MicroTurn, config) -> bool:
    """Whether the closer is SPEAK; speech must be given exactly then."""
    closed_so = item.text_out is not None and item.text_out[-1] == config.control(Control.SPEAK)
    if closed_so and item.speech is None:
        raise ValueError(f"micro-turn {item.micro_turn}: the closer is SPEAK but speech is None")
    if not closed_so and item.speech is not None:
        raise ValueError(f"micro-turn {item.micro_turn}: speech is given without a SPEAK closer")
    return closed_so


def checked_speech(micro_turn, speech, config) -> Float[np.ndarray, "R Z"]:
    """`speech` of one spoken chunk as float32 ``[R, Z]``."""
    if speech.shape != (config.mel_frames, config.mel_bands):
        raise ValueError(
            f"micro-turn {micro_turn}: speech is {list(speech.shape)}, expected "
            f"[{config.mel_frames}, {config.mel_bands}]"
        )
    return np.asarray(speech, np.float32)
