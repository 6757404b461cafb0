"""The vocoder: streaming equals whole-file, causality, silence, pitch, files, committed weights."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vocoder as config_file
from interaction.models import declare, vocoder_source
from interaction.models import vocoder as synthesis
from interaction.models.vocoder import (
    VocoderConfig,
    init_vocoder_state,
    load_vocoder,
    save_vocoder,
    vocode,
    vocode_chunk,
    vocoder_specs,
)
from interaction.streams.mel import MelConfig, mel_spectrogram, silence_mel
from interaction.train import vocoder as training
from interaction.train.vocoder_audio import AudioConfig, Recording
from interaction.train.vocoder_pitch import measure_pitch

REPOSITORY = pathlib.Path(__file__).parents[1]
COMMITTED = REPOSITORY / "checkpoints/vocoder/vocoder.safetensors"
TINY = VocoderConfig(
    width=24, feed_forward=40, layers=3, kernel=4, pitch_bands=30, pitch_context=5, pitch_width=20
)
whole = jax.jit(vocode, static_argnums=2)
chunk = jax.jit(vocode_chunk, static_argnums=3)


@pytest.fixture(scope="module")
def tiny_params():
    return declare.init(jax.random.key(1), vocoder_specs(TINY))


@pytest.fixture(scope="module")
def committed():
    return load_vocoder(COMMITTED)


def speech_like(seconds=1.7, seed=0):
    """A gliding harmonic tone with bursts of noise and a pause."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    phase = np.cumsum(110 + 40 * np.sin(2 * np.pi * 1.3 * time)) / 16_000
    tone = sum(np.cos(2 * np.pi * k * phase) / k for k in range(1, 25))
    wave = 0.08 * tone * (np.sin(2 * np.pi * 2.1 * time) > -0.3)
    wave = wave + 0.03 * rng.standard_normal(len(time)) * (np.sin(2 * np.pi * 3.3 * time) > 0.6)
    wave[int(0.8 * 16_000) : int(1.0 * 16_000)] = 0.0
    return wave.astype(np.float32)


def stream(params, mel_BTZ, config, sizes):
    state = init_vocoder_state(config, mel_BTZ.shape[0])
    pieces, start = [], 0
    for size in sizes:
        wave, state = chunk(params, state, mel_BTZ[:, start : start + size], config)
        pieces.append(np.asarray(wave))
        start += size
    assert start == mel_BTZ.shape[1]
    return np.concatenate(pieces, axis=1)


def random_sizes(total, seed, choices=(1, 3, 16)):
    rng, sizes = np.random.default_rng(seed), []
    while sum(sizes) < total:
        left = total - sum(sizes)
        sizes.append(int(rng.choice([size for size in choices if size <= left])))
    return sizes


def batch_of_two():
    return np.stack([mel_spectrogram(speech_like(seed=s)) for s in (0, 1)])


@pytest.mark.parametrize("seed", [0, 1])
def test_streaming_equals_whole_file(tiny_params, seed):
    mel = batch_of_two()
    expected = np.asarray(whole(tiny_params, mel, TINY))
    assert expected.shape == (2, mel.shape[1] * 200)
    out = stream(tiny_params, mel, TINY, random_sizes(mel.shape[1], seed))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_streaming_does_not_drift(committed):
    params, config = committed
    mel = np.tile(mel_spectrogram(speech_like()), (15, 1))[None, :1_920]
    expected = np.asarray(whole(params, mel, config))
    out = stream(params, mel, config, [16] * 120)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_unquantised_pitch_drifts(committed, monkeypatch):
    """The broken variant: a float pitch network, as a GEMM of another shape would round it."""
    params, config = committed
    mel = np.tile(mel_spectrogram(speech_like()), (3, 1))[None, :320]
    expected = np.asarray(whole(params, mel, config))
    exact = vocoder_source.pitch_increments

    def rounded(logits, config):
        increments = exact(logits, config)
        return increments * (1.0 + 1e-6 * (logits.shape[1] == 16))

    monkeypatch.setattr(synthesis, "pitch_increments", rounded)
    broken = jax.jit(lambda *arguments: vocode_chunk(*arguments, config))
    state, pieces = init_vocoder_state(config, 1), []
    for start in range(0, 320, 16):
        piece, state = broken(params, state, mel[:, start : start + 16])
        pieces.append(np.asarray(piece))
    assert np.abs(np.concatenate(pieces, axis=1) - expected).max() > 1e-5


def test_lanes_do_not_touch_each_other(tiny_params):
    mel = batch_of_two()
    both = np.asarray(whole(tiny_params, mel, TINY))
    alone = np.asarray(whole(tiny_params, mel[1:], TINY))
    np.testing.assert_allclose(both[1:], alone, atol=1e-5)


def first_changed_sample(run, mel, frame):
    changed = mel.copy()
    changed[:, frame] += 0.5
    moved = np.abs(np.asarray(run(changed)) - np.asarray(run(mel)))[0] > 1e-6
    return int(np.argmax(moved)), bool(moved.any())


def test_causal(tiny_params):
    mel = batch_of_two()[:1]
    first, any_moved = first_changed_sample(lambda m: whole(tiny_params, m, TINY), mel, 40)
    assert any_moved
    assert first >= 40 * 200


def test_non_causal_padding_is_caught(tiny_params, monkeypatch):
    """The broken variant: convolutions padded on both sides, as an offline vocoder has them."""

    def centred(x_BTD, past_BKD, kernel_KD):
        taps, frames = kernel_KD.shape[0], x_BTD.shape[1]
        padded = jnp.pad(x_BTD, ((0, 0), (taps // 2, taps - 1 - taps // 2), (0, 0)))
        out = sum(padded[:, k : k + frames] * kernel_KD[k][None, None] for k in range(taps))
        return out, past_BKD

    monkeypatch.setattr(synthesis, "_causal_convolution", centred)
    mel = batch_of_two()[:1]
    first, _ = first_changed_sample(jax.jit(lambda m: vocode(tiny_params, m, TINY)), mel, 40)
    assert first < 40 * 200


def test_delay(committed):
    """Sample n of a recording comes out at n + delay: the envelopes line up best there."""
    params, config = committed
    assert config.delay_samples == 400
    wave = speech_like()
    out = np.asarray(whole(params, mel_spectrogram(wave)[None], config))[0]

    def envelope(x):
        return np.convolve(np.abs(x), np.ones(160) / 160, "same")

    lags = np.arange(0, 1_000, 40)
    length = len(wave) - 1_200
    score = [
        np.corrcoef(envelope(out)[lag : lag + length], envelope(wave)[:length])[0, 1]
        for lag in lags
    ]
    assert abs(int(lags[int(np.argmax(score))]) - config.delay_samples) <= 80


def test_silence(committed):
    params, config = committed
    assert np.abs(whole(params, silence_mel(48)[None], config)).max() < 1e-6
    speech = mel_spectrogram(speech_like(0.5))
    mel = np.concatenate([speech, silence_mel(20)])[None]
    out = np.asarray(whole(params, mel, config))[0]
    assert np.abs(out[: len(speech) * 200]).max() > 0.02
    assert np.abs(out[(len(speech) + 2) * 200 :]).max() < 1e-6


def test_borders_are_smooth(committed):
    """No clicks: second differences at chunk borders are like those anywhere else."""
    params, config = committed
    path = REPOSITORY / "checkpoints/vocoder/example_mel.npz"
    with np.load(path) as stored:
        mel = stored["mel"].astype(np.float32)
    frames = len(mel) // 16 * 16
    out = stream(params, mel[None, :frames], config, [16] * (frames // 16))[0]
    bend = np.abs(np.diff(out, 2))
    borders = np.arange(3_200, len(out) - 1, 3_200)
    near = np.unique((borders[:, None] + np.array([-2, -1, 0])[None]).ravel())
    inside = np.delete(bend, near)
    assert np.percentile(bend[near], 99.9) <= np.percentile(inside, 99.9)
    clicked = out.copy()
    clicked[3_200 * (len(borders) // 2) :] += 0.5
    assert np.abs(np.diff(clicked, 2))[near].max() > np.percentile(inside, 99.9)


def test_sizes():
    specs = vocoder_specs(VocoderConfig())
    assert declare.count(specs) <= 2_500_000
    assert len(jax.tree.leaves(declare.abstract(specs))) <= 14
    assert len(jax.tree.leaves(init_vocoder_state(TINY, 5))) <= 7
    deeper = dataclasses.replace(TINY, layers=9)
    leaves = len(jax.tree.leaves(declare.abstract(vocoder_specs(deeper))))
    assert leaves == len(jax.tree.leaves(declare.abstract(vocoder_specs(TINY))))
    assert COMMITTED.stat().st_size <= 8_000_000


def test_file_round_trip(tmp_path, tiny_params):
    path = tmp_path / "v.safetensors"
    save_vocoder(path, tiny_params, TINY)
    params, config = load_vocoder(path)
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, params, tiny_params)
    save_vocoder(path, tiny_params, dataclasses.replace(TINY, width=25))
    with pytest.raises(ValueError, match="expected"):
        load_vocoder(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"layers": 0}, "layers=0"), ({"pitch_bands": 81}, "81"), ({"pitch_low": 500.0}, "500")],
)
def test_config_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **fields)


def test_mel_shape_error(tiny_params):
    with pytest.raises(ValueError, match=r"\[B, T, 80\]"):
        vocode(tiny_params, jnp.zeros((2, 7, 79)), TINY)


def test_noise_is_white():
    noise = np.asarray(vocoder_source.counter_noise(jnp.arange(200_000), 0))
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    correlation = [np.mean(noise[:-k] * noise[k:]) for k in (1, 2, 7, 200)]
    assert np.abs(correlation).max() < 0.01


@pytest.mark.parametrize("hertz", [70.0, 123.0, 391.0])
def test_harmonics_have_their_pitch_and_unit_power(hertz):
    increment = jnp.full((1, 60), hertz / 16_000)
    hops, _ = vocoder_source.harmonic_source(
        jnp.array([0.3]), increment[:, 0], increment, VocoderConfig()
    )
    wave = np.asarray(hops).reshape(-1)
    assert np.mean(wave**2) == pytest.approx(1.0, abs=0.1)
    assert np.nanmedian(measure_pitch(0.1 * wave, VocoderConfig())) == pytest.approx(
        hertz, rel=0.01
    )


def test_measured_pitch_follows_a_glide():
    time = np.arange(16_000) / 16_000
    hertz = 100 + 80 * time
    phase = np.cumsum(hertz) / 16_000
    wave = 0.1 * sum(np.cos(2 * np.pi * k * phase) for k in range(1, 12))
    pitch = measure_pitch(wave, VocoderConfig())
    expected = hertz[:: VocoderConfig().mel.hop]
    np.testing.assert_allclose(pitch[4:-4], expected[4:-4], rtol=0.02)
    silent = measure_pitch(np.random.default_rng(0).standard_normal(8_000) * 0.1, VocoderConfig())
    assert np.isfinite(silent).mean() < 0.2


def test_committed_weights_keep_the_pitch(committed):
    params, config = committed
    time = np.arange(16_000) / 16_000
    phase = np.cumsum(100 + 25 * time) / 16_000
    wave = 0.05 * sum(np.cos(2 * np.pi * k * phase) / np.sqrt(k) for k in range(1, 40))
    out = np.asarray(whole(params, mel_spectrogram(wave.astype(np.float32))[None], config))[0]
    before, after = (measure_pitch(x, config) for x in (wave[:-400], out[400:]))
    cents = 1_200 * np.abs(np.log2(after / before))[8:-4]
    assert np.nanmedian(cents) < 40


def test_training_resumes(tmp_path, monkeypatch):
    """Two steps and one more in a second call equal three in one; the loss is finite."""
    recordings = [Recording("a", speech_like()), Recording("b", speech_like(seed=1))]
    monkeypatch.setattr(training, "gather", lambda *_: recordings)
    config = training.VocoderTrainConfig(
        model=TINY,
        audio=AudioConfig(),
        steps=3,
        batch=2,
        frames=24,
        warm_up_steps=1,
        windows=(64, 256),
        log_every=1,
        save_every=1,
    )
    training.train(config, tmp_path / "once")

    def stop_at(batches):
        real = training.draw_batch

        def draw(corpus, config, step):
            if step >= batches:
                raise KeyboardInterrupt
            return real(corpus, config, step)

        return draw

    with monkeypatch.context() as patch:
        patch.setattr(training, "draw_batch", stop_at(2))
        with pytest.raises(KeyboardInterrupt):
            training.train(config, tmp_path / "twice")
    metrics = training.train(config, tmp_path / "twice")
    assert metrics["step"] == 3
    assert np.isfinite(metrics["loss"])
    once, twice = (load_vocoder(tmp_path / n / "vocoder.safetensors")[0] for n in ("once", "twice"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), once, twice)
    rows = (tmp_path / "twice" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"steps": 0}, "steps=0"), ({"frames": 16}, "frames=16"), ({"windows": (130,)}, "130")],
)
def test_train_config_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        training.VocoderTrainConfig(**fields)


@pytest.mark.parametrize("arg", ["", "smoke"])
def test_config_file(arg):
    fields = config_file.get_config(arg).to_dict()
    assert fields.pop("trainer") == "vocoder"
    fields["model"]["mel"] = MelConfig(**fields["model"]["mel"])
    fields["model"] = VocoderConfig(**fields["model"])
    fields["audio"] = AudioConfig(**fields["audio"])
    assert training.VocoderTrainConfig(**fields).steps in (40, 4_200)
    with pytest.raises(ValueError, match="arg="):
        config_file.get_config("unknown")


def test_committed_figures():
    """What the model card says was measured, and meets its bound."""
    figures = json.loads((REPOSITORY / "experiments/vocoder_copy_synthesis.json").read_text())
    human = figures["held_out_human"]
    assert human["words"] > 200
    assert human["cost_points"] == pytest.approx(
        human["vocoded_wer"] - human["original_wer"], abs=0.011
    )
    assert human["cost_points"] <= 5.0
    numbers = figures["target_voice_numbers"]
    assert numbers["vocoded_right"] >= numbers["original_right"] - 2
