"""The vocoder of the spoken voice.

    python launch.py train --config configs/vocoder.py --workdir runs/vocoder

Set `audio.folders` to folders with your own recordings, each `PATH` or `PATH@SECONDS` (the latter
keeps about that many seconds drawn at random), for instance
`--set "audio.folders=('recordings', 'digits@420')"`. The rest is rendered with the `voices`
extra. The committed weights heard 25 min of one studio voice, 3 min of other readers, 7 min of
spoken digits, 30 min of the Piper voice (which the model speaks with) and 30 min of espeak-ng.

Hardware: one CPU core, 2 GB. Time: about 17 minutes for 4,200 steps at 0.23 s on an otherwise
idle core, after 4 minutes of rendering and measuring pitch.
Expected: see `checkpoints/vocoder/README.md`. After 800 steps already, held-out recordings cost no
more than the interval of the measurement in word error of Whisper base.
`get_config("smoke")`: 20 seconds of espeak-ng, 40 steps, about a minute; learns nothing useful.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Fields of `interaction.train.vocoder.VocoderTrainConfig`."""
    if arg not in ("", "smoke"):
        raise ValueError(f"arg={arg!r} must be empty or 'smoke'")
    smoke = arg == "smoke"
    config = ConfigDict()
    config.trainer = "vocoder"
    config.model = dict(
        mel=dict(sample_rate=16_000, hop=200, window=800, bands=80),
        width=192,
        feed_forward=512,
        layers=6,
        kernel=5,
        pitch_context=8,
        pitch_width=160,
    )
    config.audio = dict(
        folders=(),
        exclude=(
            "sb_*",
            "librivox_0920*",
            "librivox_0930*",
            "cards_*",
            "asterisk_tt-*",
            "tt-*",
            "two_cities*",
            "*_theo_*",
            "pyannote*",
        ),
        piper_seconds=0.0 if smoke else 1800.0,
        espeak_seconds=20.0 if smoke else 1800.0,
        seed=3,
    )
    config.steps = 40 if smoke else 4_200
    config.batch = 8
    config.frames = 64
    config.learning_rate = 1.5e-3
    config.decay_share = 0.35
    config.teacher_steps = 1_200
    config.mel_noise = 0.12
    config.log_every = 10 if smoke else 50
    config.save_every = 40 if smoke else 200
    config.seed = 0
    return config
