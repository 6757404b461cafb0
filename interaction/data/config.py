"""What the data of a run is made of.

In: a `ConfigDict` at the door. Out: `DataConfig`, frozen and checked, which every other file of
`data` reads. Folders that a user may name default to environment variables; where neither is set,
the source is left out (or, for digits, taken from TFDS).
"""

import dataclasses
import os
from pathlib import Path

KINDS = ("digits", "negatives", "quiet", "flashes", "kicks", "still")


@dataclasses.dataclass(frozen=True)
class SourceFolders:
    """Where recordings lie; None: look at the environment variable, else do without.

    Attributes:
        spoken_digits: ``{digit}_{speaker}_{take}.{flac,wav}`` (``INTERACTION_SPOKEN_DIGITS``);
            without it TFDS `spoken_digit` is asked.
        media: speech, noise and video with a manifest (``INTERACTION_MEDIA``).
        asterisk: ``*.g722`` prompts of Debian's `asterisk-core-sounds-en-g722`.
        music: ``*.g722`` or ``*.wav`` of Debian's `asterisk-moh-opsound-g722`.
        tuxpaint: stamps of Debian's `tuxpaint-stamps-default`.
        cache: where the prepared clips are kept (``INTERACTION_CACHE``).
    """

    spoken_digits: str | None = None
    media: str | None = None
    asterisk: str = "/usr/share/asterisk/sounds/en_US_f_Allison"
    music: str = "/usr/share/asterisk/moh"
    tuxpaint: str = "/usr/share/tuxpaint/stamps"
    cache: str | None = None

    def folder(self, name: str) -> Path | None:
        """The folder of one source, or None where it is not there."""
        value = getattr(self, name) or os.environ.get(f"INTERACTION_{name.upper()}")
        path = Path(value).expanduser() if value else None
        return path if path is not None and path.is_dir() else None

    def cache_folder(self) -> Path:
        """The cache folder; it is made if it is not there."""
        value = self.cache or os.environ.get("INTERACTION_CACHE") or "~/.cache/interaction"
        path = Path(value).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Share of each kind of conversation; they need not add up to one.

    Attributes:
        digits: spoken digits to answer, with other sounds between them.
        negatives: speech without digits, animals, music; nothing is answered.
        quiet: silence or noise alone.
        flashes, kicks: videos to count in.
        still: videos in which nothing happens that counts.
    """

    digits: float = 0.36
    negatives: float = 0.16
    quiet: float = 0.04
    flashes: float = 0.16
    kicks: float = 0.22
    still: float = 0.06

    def __post_init__(self):
        values = dataclasses.astuple(self)
        if min(values) < 0 or sum(values) <= 0:
            raise ValueError(f"mixture={values} must be shares >= 0 with a sum above 0")

    def shares(self) -> tuple[float, ...]:
        """Shares in the order of `KINDS`, summing to one."""
        values = dataclasses.astuple(self)
        return tuple(value / sum(values) for value in values)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The whole data of a run.

    Attributes:
        seed: of everything random.
        audio_micro_turns: length of a conversation without video.
        video_micro_turns: length of one with video and sound.
        silent_video_micro_turns: length of one with video and no sound stream.
        answer_delay: seconds after a digit's end from which the answer may come.
        event_delay: seconds after a video event's end from which the count may come.
        human_share: share of digits spoken by people.
        digit_speeds: spoken digits are played so much slower to faster, which also shifts pitch
            and formants as another speaker's would be.
        warp: half of all conversations have their mel axis stretched by a factor within 1 +- this,
            as by a shorter or longer vocal tract (Jaitly and Hinton 2013).
        masked_share: share of conversations with a band of mels set to nothing (SpecAugment, Park
            et al. 2019, arXiv 1904.08779).
        slip_share: share of answers that the history holds as missed or wrong, and of other sounds
            that it holds as answered; the decision to slip is not learnt, what follows it is.
        late_share: share of answers that come one micro-turn late, where the next one leaves room.
        noise_share: share of conversations with noise added.
        signal_to_noise: dB, lowest and highest.
        loss_share: share of conversations that lose or delay some chunks.
        made_up_motions: share of the videos of kicks that repeat another movement, made up, and of
            standing figures that stand as in one.
        max_lateness: a chunk comes late by at most this many micro-turns.
        time_offset: conversations start at a micro-turn up to this one (half of them at 0).
        slots, audio, patches, speech, chunks: static sizes of a batch (see `streams.weave.batch`).
        speech_slots: slots of one spoken chunk; as in the model's config.
        mixture, folders: see there.
    """

    seed: int = 0
    audio_micro_turns: int = 60
    video_micro_turns: int = 40
    silent_video_micro_turns: int = 60
    answer_delay: float = 0.09
    event_delay: float = 0.1
    human_share: float = 0.7
    digit_speeds: tuple[float, float] = (0.75, 1.3)
    warp: float = 0.1
    masked_share: float = 0.3
    slip_share: float = 0.08
    late_share: float = 0.0
    noise_share: float = 0.6
    signal_to_noise: tuple[float, float] = (5.0, 30.0)
    loss_share: float = 0.02
    made_up_motions: float = 0.0
    max_lateness: int = 2
    time_offset: int = 3_600
    slots: int = 480
    audio: int = 240
    patches: int = 240
    speech: int = 56
    chunks: int = 28
    speech_slots: int = 2
    mixture: Mixture = Mixture()
    folders: SourceFolders = SourceFolders()

    def __post_init__(self):
        for name in ("audio_micro_turns", "video_micro_turns", "silent_video_micro_turns"):
            if getattr(self, name) < 10:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 10")
        for name in (
            "human_share", "noise_share", "loss_share", "masked_share", "slip_share",
            "late_share", "made_up_motions",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0..1")
        if not 0 <= self.warp < 0.5:
            raise ValueError(f"warp={self.warp} must lie in 0..0.5")
        low, high = self.signal_to_noise
        if low > high:
            raise ValueError(f"signal_to_noise={self.signal_to_noise}: lowest above highest")
