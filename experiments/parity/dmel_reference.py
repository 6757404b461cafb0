"""Reference dMel features.

In: a folder of 16 kHz mono FLAC clips, plus a few synthetic waveforms made here. Out: a flat dict
of arrays (see README.md for the keys): log-mel values of `InklingFeatureExtractor` and the
16-level bins of `InklingProcessor`, from `transformers`.
"""

import types
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers.models.inkling.feature_extraction_inkling import InklingFeatureExtractor
from transformers.models.inkling.processing_inkling import InklingProcessor

SAMPLE_RATE = 16_000
LEVELS, LOWEST, HIGHEST = 16, -7.0, 2.0


def synthetic_waveforms() -> dict[str, np.ndarray]:
    """Edge cases, float32: silence, one sample, an impulse on a hop border, loud noise, a sweep."""
    rng = np.random.default_rng(2024)
    impulse = np.zeros(3200, np.float32)
    impulse[800] = 1.0
    seconds = np.arange(4801) / SAMPLE_RATE
    sweep = 0.5 * np.sin(2 * np.pi * (50 * seconds + 13_000 * seconds**2))
    return {
        "silence": np.zeros(1600, np.float32),
        "one_sample": np.full(1, 0.25, np.float32),
        "impulse": impulse,
        "noise": rng.uniform(-1, 1, 2399).astype(np.float32),
        "sweep": sweep.astype(np.float32),
    }


def dmel_reference(audio_folder: Path) -> dict[str, np.ndarray]:
    """All dMel goldens, `name/key` -> array."""
    extractor = InklingFeatureExtractor()
    centres = torch.linspace(LOWEST, HIGHEST, LEVELS, dtype=torch.float64).to(torch.float32)
    quantiser = types.SimpleNamespace(
        bin_centers=centres, dmel_min_value=LOWEST, dmel_max_value=HIGHEST
    )
    waveforms = {}
    for path in sorted(audio_folder.glob("*.flac")):
        samples, rate = soundfile.read(path, dtype="float32")
        if rate != SAMPLE_RATE or samples.ndim != 1:
            raise ValueError(f"{path}: want mono {SAMPLE_RATE} Hz, got {rate} Hz {samples.shape}")
        waveforms[path.stem] = samples
    out = {
        "mel_filters": extractor.mel_filters.numpy(),
        "window": extractor.window.numpy(),
    }
    synthetic = synthetic_waveforms()
    for name, samples in (waveforms | synthetic).items():
        features = extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        log_mel = features["input_features"]
        bins = InklingProcessor._extract_dmel_bins(quantiser, log_mel)
        out[f"{name}/log_mel"] = log_mel[0].numpy()
        out[f"{name}/bins"] = bins[0].numpy().astype(np.uint8)
        if name in synthetic:
            out[f"{name}/waveform"] = samples
    return out
