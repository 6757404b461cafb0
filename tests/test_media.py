"""Reading sound and video in any wrapping, and one clear error for what cannot be read."""

import av
import numpy as np
import pytest
import soundfile

from interaction.streams.media import MediaError, read_audio, read_video, resample, write_wav

SECONDS = 0.9


def tone(rate: int, channels: int) -> np.ndarray:
    """A 440 Hz tone ``[W, channels]`` of mean amplitude 0.3, louder in the later channels."""
    time = np.arange(round(SECONDS * rate)) / rate
    gains = 0.3 * 2 * np.arange(1, channels + 1) / (channels + 1)
    return (np.sin(2 * np.pi * 440 * time)[:, None] * gains).astype(np.float32)


def check_tone(samples, tolerance=0.02, level=0.3):
    """Mono at 16 kHz; 440 Hz at `level` wherever the codec's border is over."""
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) / 16_000 - SECONDS) < 0.1
    middle = samples[4_800:9_600]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(4_800)))
    assert abs(np.argmax(spectrum) * 16_000 / 4_800 - 440) < 4
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(level, abs=tolerance)


@pytest.mark.parametrize(
    ("ending", "subtype", "rate", "channels"),
    [
        ("wav", "PCM_16", 8_000, 1),
        ("wav", "FLOAT", 48_000, 6),
        ("wav", "PCM_24", 22_050, 2),
        ("flac", "PCM_16", 44_100, 2),
        ("flac", "PCM_16", 16_000, 1),
        ("ogg", "VORBIS", 32_000, 2),
        ("ogg", "OPUS", 24_000, 1),
        ("mp3", "MPEG_LAYER_III", 44_100, 2),
        ("aiff", "PCM_16", 11_025, 3),
    ],
)
def test_sound_files(tmp_path, ending, subtype, rate, channels):
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, tone(rate, channels), rate, subtype=subtype)
    check_tone(read_audio(path))


def write_container(path, codec, rate, layout, *, video=False, frames=(), audio=True):
    """A file by PyAV with a tone and/or frames given as (time in ms, grey level)."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=rate, layout=layout) if audio else None
        picture = None
        if video:
            picture = container.add_stream("ffv1", rate=30)
            picture.width, picture.height, picture.pix_fmt = 48, 32, "yuv420p"
            picture.codec_context.time_base = picture.time_base = av_time(1, 1000)
        for milliseconds, grey in frames:
            image = np.full((32, 48, 3), grey, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = milliseconds, av_time(1, 1000)
            container.mux(picture.encode(frame))
        if picture is not None:
            container.mux(picture.encode(None))
        if sound is not None:
            channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
            samples = np.ascontiguousarray(tone(rate, channels).T)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.rate, frame.pts = rate, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))


def av_time(top, bottom):
    from fractions import Fraction

    return Fraction(top, bottom)


@pytest.mark.parametrize(
    ("ending", "codec", "rate", "layout", "video"),
    [
        ("m4a", "aac", 44_100, "mono", False),
        ("mp4", "aac", 48_000, "stereo", True),
        ("mkv", "aac", 48_000, "5.1", False),
        ("mkv", "ac3", 44_100, "stereo", True),
    ],
)
def test_sound_in_containers(tmp_path, ending, codec, rate, layout, video):
    path = tmp_path / f"tone.{ending}"
    frames = [(i * 33, 100) for i in range(27)] if video else []
    write_container(path, codec, rate, layout, video=video, frames=frames)
    # AAC takes the tone out of the low-frequency channel of 5.1, whose gain is 4 of 21 parts.
    check_tone(read_audio(path), tolerance=0.03, level=0.3 * (17 / 21 if layout == "5.1" else 1))


def test_sound_at_its_own_rate_is_untouched(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 5_003).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), samples)
    assert len(read_audio(tmp_path / "a.wav", 8_000)) == pytest.approx(2_501, abs=2)
    assert len(resample(samples, 16_000, 48_000)) == 3 * 5_003


def test_wav_round_trip_clips(tmp_path):
    samples = np.array([0.0, 0.5, -0.25, 3.0, -3.0], np.float32)
    write_wav(tmp_path / "a.wav", samples, 24_000)
    assert soundfile.info(tmp_path / "a.wav").samplerate == 24_000
    again = read_audio(tmp_path / "a.wav", 24_000)
    np.testing.assert_allclose(again, np.clip(samples, -1, 1), atol=2**-14)
    with pytest.raises(ValueError, match="finite"):
        write_wav(tmp_path / "b.wav", np.full(3, np.inf))


def greys(frames):
    return frames.reshape(len(frames), -1).mean(-1)


@pytest.mark.parametrize("fps", [8, 10, 23.976, 29.97, 60])
def test_constant_frame_rates(tmp_path, fps):
    """Grey level = 100 * time, so that a frame tells when it was shown."""
    count = round(2 * fps)
    stamps = [(round(1000 * i / fps), round(100 * i / fps)) for i in range(count)]
    write_container(tmp_path / "a.mkv", None, 0, "mono", video=True, frames=stamps, audio=False)
    frames, times = read_video(tmp_path / "a.mkv")
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (32, 48, 3)
    assert len(frames) == len(times)
    assert abs(len(frames) - 20) <= 1
    np.testing.assert_allclose(times, np.arange(len(times)) / 10)
    # The newest frame before the interval's end: between one frame and one interval old.
    shown = greys(frames)[:19] / 100
    assert (shown < times[:19] + 0.1 + 0.03).all()
    assert (shown > times[:19] + 0.1 - 1 / fps - 0.04).all()


def test_variable_frame_rate_start_and_duration(tmp_path):
    stamps = [(0, 10), (40, 40), (90, 80), (500, 120), (510, 160), (1_450, 200), (1_500, 240)]
    write_container(tmp_path / "a.mkv", None, 0, "mono", video=True, frames=stamps, audio=False)
    frames, times = read_video(tmp_path / "a.mkv")
    expected = [80] * 5 + [160] * 9 + [200, 240]
    np.testing.assert_allclose(greys(frames)[:16], expected, atol=6)
    frames, times = read_video(tmp_path / "a.mkv", rate=5, start=0.3, duration=0.6)
    np.testing.assert_allclose(greys(frames), [80, 160, 160], atol=6)
    np.testing.assert_allclose(times, [0, 0.2, 0.4])
    with pytest.raises(MediaError, match=r"ends at .*start=9"):
        read_video(tmp_path / "a.mkv", start=9)


def test_files_that_cannot_be_used(tmp_path):
    missing, empty = tmp_path / "missing.wav", tmp_path / "empty.wav"
    empty.write_bytes(b"")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 4_000, np.uint8)))
    sound, picture, silent = tmp_path / "s.wav", tmp_path / "p.mkv", tmp_path / "n.wav"
    write_wav(sound, tone(16_000, 1))
    write_wav(silent, np.zeros(0))
    stamps = [(i * 100, 50) for i in range(5)]
    write_container(picture, None, 0, "mono", video=True, frames=stamps, audio=False)
    cases = [
        (read_audio, missing, "no such file"),
        (read_video, missing, "no such file"),
        (read_audio, tmp_path, "not a file"),
        (read_audio, empty, "empty"),
        (read_video, empty, "empty"),
        (read_audio, broken, "can be read"),
        (read_video, broken, "can be read"),
        (read_video, sound, "no picture.*wav container with audio"),
        (read_audio, picture, "no sound.*video \\(ffv1\\)"),
        (read_audio, silent, "no samples"),
    ]
    for read, path, message in cases:
        with pytest.raises(MediaError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_file_cut_in_the_middle_gives_what_is_there_or_says_so(tmp_path):
    whole = tmp_path / "a.mkv"
    stamps = [(i * 50, 10 + 5 * i) for i in range(40)]
    write_container(whole, "aac", 48_000, "stereo", video=True, frames=stamps)
    data = whole.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        cut = tmp_path / f"cut{share}.mkv"
        cut.write_bytes(data[: int(len(data) * share)])
        for read in (read_audio, read_video):
            message = ""
            try:
                result = read(cut)
            except MediaError as error:
                result, message = [None], str(error)
            assert len(result) > 0
            assert not message or str(cut) in message


def test_a_video_that_is_turned_comes_upright(tmp_path):
    """As telephones write it: the picture as the sensor sees it, and a turn in the header."""
    path = tmp_path / "a.mp4"
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24] = 255  # top left
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 48, 32, "yuv420p"
        for _ in range(3):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode(None))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")  # clockwise
    data[matrix : matrix + 36] = turn.tobytes()
    path.write_bytes(data)
    frames, _ = read_video(path)
    assert frames.shape == (3, 48, 32, 3)
    assert frames[0, 5, 25].mean() > 200  # top right
    assert frames[0, 5, 5].mean() < 60
    assert frames[0, 40, 25].mean() < 60
