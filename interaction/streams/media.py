"""Sound and video files to arrays, and sound to a WAV file.

In: a path; any container, channel count, sample rate and frame rate that soundfile or PyAV read.
Out: mono float32 samples at the wanted rate, uint8 RGB frames at the wanted rate with their times.
A file that cannot be used gives one `MediaError` that names it and says what was found.
"""

import os
from collections.abc import Callable

import av
import numpy as np
import soundfile
import soxr
from av.container import InputContainer
from av.error import FFmpegError

from interaction.shapes import Float, UInt8
from interaction.streams.image import frame_at


class MediaError(ValueError):
    """A file that cannot be used: missing, empty, broken, or without the wanted stream."""


def _checked_path(path: str | os.PathLike) -> str:
    path = os.fspath(path)
    if not os.path.exists(path):
        raise MediaError(f"{path}: no such file")
    if not os.path.isfile(path):
        raise MediaError(f"{path}: not a file")
    if os.path.getsize(path) == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes)")
    return path


# ---------------------------------------------------------------- sound


def read_audio(path: str | os.PathLike, sample_rate: int = 16_000) -> Float[np.ndarray, "W"]:
    """The sound of a file, mixed to one channel and resampled.

    Args:
        path: a sound file, or a video with sound.
        sample_rate: wanted samples per second.

    Returns:
        float32 ``[W]``, the mean of all channels. A file that ends in the middle gives what was
        there before.

    Raises:
        MediaError: missing, empty or broken file, or one without sound.
    """
    samples, rate = _decoded(path, sample_rate)
    return resample(samples.mean(axis=1, dtype=np.float32), rate, sample_rate)


def read_channels(
    path: str | os.PathLike, sample_rate: int = 16_000
) -> Float[np.ndarray, "channels W"]:
    """The sound of a file as `read_audio` gives it, each channel for itself."""
    samples, rate = _decoded(path, sample_rate)
    return np.stack([resample(channel, rate, sample_rate) for channel in samples.T])


def _decoded(path, sample_rate: int) -> tuple[Float[np.ndarray, "W channels"], int]:
    """Samples of every channel and their rate, checked."""
    path = _checked_path(path)
    if sample_rate < 1:
        raise ValueError(f"sample_rate={sample_rate} must be at least 1")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError):
        samples, rate = _read_audio_av(path)
    if len(samples) == 0:
        raise MediaError(f"{path}: its sound has no samples")
    if not np.isfinite(samples).all():
        raise MediaError(f"{path}: its sound holds numbers that are not finite")
    return samples, rate


def resample(samples: Float[np.ndarray, "W"], rate: int, wanted: int) -> Float[np.ndarray, "W"]:
    """Band-limited resampling (soxr, high quality); ``ceil(W * wanted / rate)`` samples or so."""
    if rate == wanted:
        return np.ascontiguousarray(samples, np.float32)
    return soxr.resample(samples, rate, wanted, quality="HQ").astype(np.float32)


def _read_audio_av(path) -> tuple[Float[np.ndarray, "W channels"], int]:
    """Samples of every channel and their rate."""
    parts, rate, broken = [], 0, None
    with _open(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: no sound in it; found {_found(container)}")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")  # keeps the file's rate and channels
        try:
            for frame in container.decode(stream):
                rate = frame.sample_rate
                parts += [part.to_ndarray() for part in resampler.resample(frame)]
            parts += [part.to_ndarray() for part in resampler.resample(None)]
        except (FFmpegError, ValueError) as error:
            broken = error
    if not parts:
        raise MediaError(f"{path}: its sound cannot be decoded ({broken or 'no frames'})")
    return np.concatenate(parts, axis=1).T, rate


def write_wav(
    path: str | os.PathLike, samples: Float[np.ndarray, "W"], sample_rate: int = 16_000
) -> None:
    """Writes 16-bit PCM; samples beyond [-1, 1] are clipped.

    Args:
        path: file to write.
        samples: ``[W]`` or ``[W, channels]``.
        sample_rate: samples per second.

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise ValueError(f"samples are {list(samples.shape)}, expected [W] or [W, channels]")
    if not np.isfinite(samples).all():
        raise ValueError("samples hold a number that is not finite")
    soundfile.write(os.fspath(path), np.clip(samples, -1, 1), sample_rate, subtype="PCM_16")


# ---------------------------------------------------------------- video


def read_video(
    path: str | os.PathLike,
    rate: float = 10,
    start: float = 0,
    duration: float | None = None,
    *,
    shrink: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[UInt8[np.ndarray, "F h w 3"], Float[np.ndarray, "F"]]:
    """The frames of a video, resampled to a constant rate by their time stamps.

    Each interval of ``1 / rate`` s shows the newest frame that came before its end, however long
    ago; one before the first frame shows the first frame. Works for constant and variable frame
    rates, and keeps only the frames it shows.

    Args:
        path: a video file.
        rate: wanted frames per second.
        start: seconds of the video to leave out.
        duration: seconds to take at most; None: to the end.
        shrink: makes of each frame that is shown what is kept of it, so that a long video need
            not lie in memory at its full size.

    Returns:
        uint8 RGB frames ``[F, h, w, 3]`` and the time of each in seconds after `start` (float64
        ``[F]``, multiples of ``1 / rate``).

    Raises:
        MediaError: missing, empty or broken file, one without a picture, or none after `start`.
    """
    path = _checked_path(path)
    if rate <= 0 or start < 0 or (duration is not None and duration <= 0):
        raise ValueError(f"rate={rate}, start={start}, duration={duration}: out of range")
    times, frames, end = _read_frames(path, rate, start, duration, shrink or (lambda frame: frame))
    count = max(1, int(np.ceil((end - start) * rate - 1e-6)))
    index = frame_at(np.array(times) - start, rate, count, hold=np.inf)
    shown = np.stack([frames[i] for i in np.maximum(index, 0)])
    return shown, np.arange(count) / rate


def _read_frames(path, rate, start, duration, shrink):
    """The newest frame of every interval, their times, and where the wanted part ends."""
    limit = np.inf if duration is None else start + duration
    times: list[float] = []
    frames: list[np.ndarray] = []
    origin, newest, length, broken = None, None, 0.0, None
    with _open(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path}: no picture in it; found {_found(container)}")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        guess = 1 / float(stream.average_rate or stream.guessed_rate or rate)
        time, size = -guess, None
        try:
            for frame in container.decode(stream):
                stamp = time + guess if frame.time is None else frame.time
                origin = stamp if origin is None else origin
                time = stamp - origin
                if time >= limit - 1e-6:
                    length = limit
                    break
                length = time + guess
                if newest is not None and _interval(time, start, rate) != _interval(
                    newest[0], start, rate
                ):
                    size = _keep(times, frames, newest, size, shrink)
                newest = (time, frame)
        except (FFmpegError, ValueError) as error:
            broken = error
        if newest is not None:
            _keep(times, frames, newest, size, shrink)
    if not frames:
        raise MediaError(f"{path}: its picture cannot be decoded ({broken or 'no frames'})")
    if length <= start:
        raise MediaError(f"{path}: the picture ends at {length:.2f} s, start={start}")
    return times, frames, min(length, limit)


def _interval(time, start, rate) -> int:
    """Number of the interval of a frame; every frame before `start` is in the one before it."""
    return max(-1, int(np.floor((time - start) * rate + 1e-6)))


def _keep(times, frames, newest, size, shrink) -> tuple[int, int]:
    """Adds a frame at the size of the first one, upright as its rotation says; gives that size."""
    time, frame = newest
    height, width = (frame.height, frame.width) if size is None else size
    times.append(time)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    upright = np.rot90(pixels, round(frame.rotation / 90))  # degrees counter-clockwise
    frames.append(shrink(upright))
    return height, width


# ---------------------------------------------------------------- containers


def _open(path) -> InputContainer:
    try:
        container = av.open(path, mode="r")
    except (FFmpegError, ValueError, OSError) as error:
        size = os.path.getsize(path)
        raise MediaError(
            f"{path}: no sound or video format that can be read ({size} bytes: {error})"
        ) from error
    assert isinstance(container, InputContainer)
    return container


def _found(container) -> str:
    kinds = [f"{stream.type} ({_codec(stream)})" for stream in container.streams]
    return f"a {container.format.name} container with {', '.join(kinds) or 'no streams'}"


def _codec(stream) -> str:
    context = stream.codec_context
    return "unknown" if context is None else context.name
