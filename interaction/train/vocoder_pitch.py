"""Measured pitch of recordings, the target of the vocoder's pitch network.

In: a waveform. Out: Hz on the hop grid, NaN where unvoiced. Autocorrelation candidates and a
Viterbi path through them (Boersma, 1993, "Accurate short-term analysis of the fundamental
frequency"), twice: the second pass prefers candidates near the first pass's median, which takes
out most octave errors of single-speaker recordings.
"""

import numpy as np

from interaction.models.vocoder import VocoderConfig
from interaction.streams.filterbank import periodic_hann

CANDIDATES = 6
WINDOW = 800
TRANSFORM = 2048
OCTAVE_COST = 0.02
JUMP_COST = 0.3
VOICING_COST = 0.1
UNVOICED_STRENGTH = 0.5
MEDIAN_COST = 0.3


def measure_pitch(wave: np.ndarray, config: VocoderConfig) -> np.ndarray:
    """Pitch of one recording.

    Args:
        wave: `[W]` samples.

    Returns:
        Hz at sample `hop * t` for every frame `t`, NaN where unvoiced, float32 `[W // hop]`.
    """
    frequency, strength = _candidates(np.asarray(wave, np.float64), config)
    pitch = _best_path(frequency, strength)
    if np.isfinite(pitch).sum() > 10:
        octaves = np.abs(np.log2(frequency / np.nanmedian(pitch)))
        pitch = _best_path(frequency, strength - MEDIAN_COST * np.maximum(octaves - 0.4, 0.0))
    return pitch.astype(np.float32)


def _candidates(wave, config):
    """Frequencies and strengths of the best autocorrelation peaks, both `[frames, candidates]`."""
    rate, hop = config.mel.sample_rate, config.mel.hop
    frames = len(wave) // hop
    padded = np.concatenate([np.zeros(WINDOW // 2), wave, np.zeros(WINDOW)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop][:frames]
    window = periodic_hann(WINDOW)
    shape = np.fft.irfft(np.abs(np.fft.rfft(window, TRANSFORM)) ** 2)
    lags = np.arange(int(rate / config.pitch_high), int(rate / config.pitch_low) + 1)
    shape = (shape / shape[0])[lags[0] - 1 : lags[-1] + 2]
    loudest = np.sqrt(np.mean(windows**2, axis=1)).max(initial=0.0)
    frequency = np.full((frames, CANDIDATES), config.pitch_low)
    strength = np.full((frames, CANDIDATES), -1.0)
    for start in range(0, frames, 2048):
        block = windows[start : start + 2048]
        block = (block - block.mean(axis=1, keepdims=True)) * window
        correlation = np.fft.irfft(np.abs(np.fft.rfft(block, TRANSFORM)) ** 2)
        power = np.maximum(correlation[:, :1], 1e-9)
        correlation = correlation[:, lags[0] - 1 : lags[-1] + 2] / power / shape
        left, middle, right = correlation[:, :-2], correlation[:, 1:-1], correlation[:, 2:]
        peak = (middle >= left) & (middle > right)
        score = np.where(peak, middle - OCTAVE_COST * np.log2(lags / lags[0]), -1.0)
        best = np.argpartition(-score, CANDIDATES, axis=1)[:, :CANDIDATES]
        pick = [np.take_along_axis(x, best, axis=1) for x in (left, middle, right, score)]
        bend = np.minimum(pick[0] - 2 * pick[1] + pick[2], -1e-9)
        offset = np.clip(0.5 * (pick[0] - pick[2]) / bend, -0.5, 0.5)
        frequency[start : start + 2048] = rate / (lags[best] + offset)
        quiet = np.sqrt(np.mean(block**2, axis=1, keepdims=True)) < 0.02 * loudest + 1e-4
        strength[start : start + 2048] = np.where(quiet, -1.0, pick[3])
    return frequency, strength


def _best_path(frequency, strength):
    """Viterbi over the candidates and the unvoiced state; Hz or NaN per frame."""
    frames, states = len(frequency), frequency.shape[1] + 1
    if frames == 0:
        return np.zeros(0)
    octave = np.log2(frequency)
    local = np.concatenate([strength, np.full((frames, 1), UNVOICED_STRENGTH)], axis=1)
    total, back = local[0], np.zeros((frames, states), np.int32)
    change = np.full((states, states), VOICING_COST)
    change[-1, -1] = 0.0
    for t in range(1, frames):
        change[:-1, :-1] = JUMP_COST * np.abs(octave[t - 1][:, None] - octave[t][None])
        scores = total[:, None] - change
        back[t] = np.argmax(scores, axis=0)
        total = scores[back[t], np.arange(states)] + local[t]
    pitch = np.full(frames, np.nan)
    state = int(np.argmax(total))
    for t in range(frames - 1, -1, -1):
        if state < states - 1:
            pitch[t] = frequency[t, state]
        state = back[t, state]
    return pitch
