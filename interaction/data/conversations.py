"""Conversations to learn from: what is heard and seen, and what is to be said and when.

In: a seed, a split and a `ClipBank`. Out: `Scene` (sound, video and the answers that are due) and
its list of `MicroTurn`s. The same seed gives the same conversation.

What is to be learnt. A spoken digit: in the first micro-turn whose output border is at or after
its end + `answer_delay`, write it and say the next number. An event in a video: in the first
micro-turn whose border is at or after its end + `event_delay`, write how many there were so far
and say it. Speech goes on micro-turn by micro-turn; the one after it gives up the floor (YIELD).
Everything else is passed over (PASS).
"""

import dataclasses
from collections import Counter

import numpy as np

from interaction.data import sounds
from interaction.data import video as videos
from interaction.data.clips import ClipBank, Sound, Split
from interaction.data.config import KINDS, DataConfig
from interaction.data.filmed import film_excerpt, films
from interaction.data.speaking import Answer, Slip, speak
from interaction.data.voices import SAMPLE_RATE
from interaction.microturn import MICRO_TURN_SECONDS, Grid, first_border_after
from interaction.streams.audio import BANDS, CARRY, CHUNK, dmel
from interaction.streams.layout import WeaveConfig
from interaction.types import AudioChunk, MicroTurn

_GRID = Grid()
_ANSWER_LENGTH = 4  # micro-turns that the longest answer takes, and lies before the next one
_MOST_TOGETHER = WeaveConfig().max_audio_chunks
_SPLIT_KEY = {Split.TRAIN: 1, Split.TEST: 2}


@dataclasses.dataclass(frozen=True)
class Scene:
    """One conversation before it is cut into micro-turns.

    Attributes:
        kind: one of `KINDS`.
        micro_turns: its length.
        sound: float32 ``[micro_turns * 3200]``, or None for no sound stream.
        tubelets: uint8 ``[micro_turns, P, 2, 40, 40, 3]``, or None for no video.
        answers: what is due, rising in time.
        arrivals: for each heard chunk the micro-turn in which it comes, -1 if it is lost.
        first_micro_turn: session time at which it begins.
        bands: int ``[80]``, which mel band each heard band is taken from, -1 for none.
    """

    kind: str
    micro_turns: int
    sound: np.ndarray | None
    tubelets: np.ndarray | None
    answers: tuple[Answer, ...]
    arrivals: tuple[int, ...]
    first_micro_turn: int = 0
    bands: tuple[int, ...] = tuple(range(BANDS))


class Conversations:
    """Random access to an endless supply of conversations of one split."""

    def __init__(self, config: DataConfig, bank: ClipBank, split: Split):
        self.config, self.bank, self.split = config, bank, split
        self.films = films(config, split)
        for sound in (Sound.DIGIT, Sound.WORD, Sound.SENTENCE, Sound.NOISE):
            if not bank.select(split, sound):
                raise ValueError(
                    f"the clip bank has no {sound.value} in split {split.value!r}; name the "
                    "source folders (see SourceFolders)"
                )

    def random(self, seed: int) -> np.random.Generator:
        """The generator of one conversation."""
        return np.random.default_rng([self.config.seed, _SPLIT_KEY[self.split], seed])

    def scene(self, seed: int, kind: str | None = None) -> Scene:
        """The conversation of a seed, of a random kind unless one is named."""
        random = self.random(seed)
        drawn = str(random.choice(KINDS, p=self.config.mixture.shares()))
        kind = kind or drawn
        if kind in ("digits", "negatives", "quiet"):
            scene = self._heard(random, kind)
        else:
            scene = self._seen(random, kind)
        offset = int(random.integers(0, self.config.time_offset + 1))
        start = offset if random.random() < 0.5 else 0
        arrivals = self.arrivals(random, scene.micro_turns)
        scene = self._late(random, scene)
        return dataclasses.replace(
            scene,
            arrivals=arrivals,
            first_micro_turn=start,
            bands=mel_bands(random, self.config),
            answers=tuple(self._slipped(random, answer) for answer in scene.answers),
        )

    def micro_turns(self, seed: int, kind: str | None = None) -> list[MicroTurn]:
        """The conversation of a seed as micro-turns, ready to weave."""
        return micro_turns(self.scene(seed, kind), np.random.default_rng([seed, 3]))

    # ------------------------------------------------------------ heard

    def _heard(self, random, kind: str) -> Scene:
        with_video = kind != "quiet" and random.random() < 0.08
        count = self.config.video_micro_turns if with_video else self.config.audio_micro_turns
        wave = np.zeros(count * CHUNK, np.float32)
        answers = []
        if kind == "digits":
            answers = self._fill_digits(random, wave)
        elif kind == "negatives":
            answers = self._fill_negatives(random, wave)
        self.add_noise(random, wave, always=kind == "quiet" and random.random() < 0.85)
        tubelets = None
        if with_video:
            tubelets = self._still(random, count)
        return Scene(kind, count, wave, tubelets, tuple(answers), ())

    def _digit(self, random):
        origin = "human" if random.random() < self.config.human_share else "voice"
        clips = self.bank.select(self.split, Sound.DIGIT, origin)
        clips = clips or self.bank.select(self.split, Sound.DIGIT)
        clip = clips[random.integers(len(clips))]
        return clip, sounds.varied(random, clip, speeds=self.config.digit_speeds)

    def _negative(self, random) -> np.ndarray:
        """A sound that calls for no answer."""
        pick = random.random()
        if pick < 0.12:
            clips = self.bank.select(self.split, Sound.DIGIT, "human")
            clip = clips[random.integers(len(clips))]
            if clip.label != 9:  # "nine" is nearly the same backwards
                return sounds.varied(random, clip).samples[::-1]
        if pick < 0.22:
            clips = self.bank.select(self.split, Sound.CREATURE)
        elif pick < 0.27:
            clips = self.bank.select(self.split, Sound.MUSIC)
        else:
            sound = Sound.WORD if random.random() < 0.62 else Sound.SENTENCE
            origin = "human" if random.random() < 0.5 else "voice"
            clips = self.bank.select(self.split, sound, origin)
        clips = clips or self.bank.select(self.split, Sound.SENTENCE)
        clip = clips[random.integers(len(clips))]
        limited = dataclasses.replace(
            clip,
            samples=sounds.excerpt(random, clip.samples, min(len(clip.samples), 4 * SAMPLE_RATE)),
        )
        heard = sounds.varied(random, limited, speeds=self.config.digit_speeds).samples
        if random.random() < 0.25:
            heard = sounds.fragment(random, heard)
        return heard[::-1] if random.random() < 0.12 else heard

    def _fill_digits(self, random, wave: np.ndarray) -> list[Answer]:
        answers, here, last = [], int(random.uniform(0.0, 1.0) * SAMPLE_RATE), -9
        pace = random.uniform(0.25, 1.6)
        while True:
            if random.random() < 0.22:
                negative = self._negative(random)[: 2 * SAMPLE_RATE]
                if here + len(negative) >= len(wave):
                    break
                wave[here : here + len(negative)] += negative
                here += len(negative) + int(random.uniform(0.3, 1.0) * SAMPLE_RATE)
            clip, heard = self._digit(random)
            end = here / SAMPLE_RATE + heard.end
            micro_turn = first_border_after(end + self.config.answer_delay)
            if micro_turn < last + _ANSWER_LENGTH:
                here += CHUNK * (last + _ANSWER_LENGTH - micro_turn)
                continue
            if micro_turn + _ANSWER_LENGTH > len(wave) // CHUNK:
                break
            wave[here : here + len(heard.samples)] += heard.samples
            answers.append(Answer(micro_turn, clip.label, clip.label + 1, end, clip.name))
            last = micro_turn
            here += len(heard.samples) + int((0.25 + random.exponential(pace)) * SAMPLE_RATE)
        return answers

    def _fill_negatives(self, random, wave: np.ndarray) -> list[Answer]:
        answers = []
        here = int(random.uniform(0.0, 1.0) * SAMPLE_RATE)
        while here < len(wave):
            part = self._negative(random)[: len(wave) - here]
            wave[here : here + len(part)] += part
            here += len(part) + int(random.uniform(0.05, 1.2) * SAMPLE_RATE)
            micro_turn = first_border_after(min(here, len(wave)) / SAMPLE_RATE)
            after_last = not answers or micro_turn >= answers[-1].micro_turn + _ANSWER_LENGTH
            if after_last and random.random() < self.config.slip_share / 2:
                digit = int(random.integers(10))
                end = here / SAMPLE_RATE
                answers.append(Answer(micro_turn, digit, digit + 1, end, "", Slip.WRONG))
        return answers

    def _slipped(self, random, answer: Answer) -> Answer:
        """The answer, or now and then a slip in its place."""
        if answer.slip is not Slip.NONE or random.random() >= self.config.slip_share:
            return answer
        if random.random() < 0.6:
            return dataclasses.replace(answer, slip=Slip.MISSED)
        wrong = (answer.written + int(random.integers(1, 10))) % 10
        spoken = wrong + answer.spoken - answer.written
        return dataclasses.replace(answer, written=wrong, spoken=spoken, slip=Slip.WRONG)

    def _late(self, random, scene: Scene) -> Scene:
        """Now and then an answer comes a micro-turn late: who has missed it is to say it then."""
        if not self.config.late_share or not scene.answers:
            return scene
        answers = list(scene.answers)
        ends = [answer.micro_turn for answer in answers[1:]] + [scene.micro_turns]
        for index, (answer, end) in enumerate(zip(answers, ends, strict=True)):
            room = end - answer.micro_turn > _ANSWER_LENGTH
            if room and random.random() < self.config.late_share:
                answers[index] = dataclasses.replace(answer, micro_turn=answer.micro_turn + 1)
        return dataclasses.replace(scene, answers=tuple(answers))

    def _digits_between(self, random, wave: np.ndarray, events) -> list[Answer]:
        """Up to six digits, put where their answers leave those of `events` alone."""
        taken = [first_border_after(end + self.config.event_delay) for end in events]
        answers = []
        for _ in range(random.integers(1, 7)):
            clip, heard = self._digit(random)
            here = int(random.integers(max(1, len(wave) - len(heard.samples) - 4 * CHUNK)))
            end = here / SAMPLE_RATE + heard.end
            micro_turn = first_border_after(end + self.config.answer_delay)
            apart = all(abs(micro_turn - other) >= _ANSWER_LENGTH for other in taken)
            free = not np.any(wave[here : here + len(heard.samples)])
            if apart and free and micro_turn + _ANSWER_LENGTH <= len(wave) // CHUNK:
                wave[here : here + len(heard.samples)] += heard.samples
                answers.append(Answer(micro_turn, clip.label, clip.label + 1, end, clip.name))
                taken.append(micro_turn)
        return answers

    def add_noise(self, random, wave: np.ndarray, *, always: bool = False) -> None:
        if not always and random.random() > self.config.noise_share:
            if random.random() < 0.5:
                wave += random.normal(0, 10 ** random.uniform(-5, -3.3), len(wave)).astype(
                    np.float32
                )
            return
        pick = random.random()
        if pick < 0.4:
            noise = sounds.coloured_noise(random, len(wave))
        elif pick < 0.48:
            noise = sounds.tones(random, len(wave))
        else:
            kind = Sound.NOISE if pick < 0.85 else Sound.CREATURE if pick < 0.93 else Sound.MUSIC
            clips = self.bank.select(self.split, kind) or self.bank.select(self.split, Sound.NOISE)
            clip = clips[random.integers(len(clips))]
            noise = sounds.excerpt(random, clip.samples, len(wave))
            noise = noise / (noise.std() + 1e-6)
        loud = np.abs(wave) > 0.05 * np.max(np.abs(wave))
        speech = np.sqrt(np.mean(np.square(wave[loud]))) if loud.any() else 0.0
        if not speech > 0:
            level = 10 ** random.uniform(-3.5, -1.0)
        else:
            level = speech * 10 ** (-random.uniform(*self.config.signal_to_noise) / 20)
        wave += np.float32(level) * noise
        np.clip(wave, -1, 1, out=wave)

    def arrivals(self, random, count: int) -> tuple[int, ...]:
        """When each chunk comes: on time, late, or never."""
        arrivals = list(range(count))
        if random.random() < self.config.loss_share:
            for index in random.choice(count - 4, random.integers(1, 4), replace=False):
                late = int(random.integers(0, self.config.max_lateness + 1))
                arrivals[index] = int(index) + late if late else -1
        together = Counter(when for when in arrivals if when >= 0)
        for index, when in enumerate(arrivals):
            if when > index and together[when] > _MOST_TOGETHER:
                together[when] -= 1
                arrivals[index] = -1
        return tuple(arrivals)

    # ------------------------------------------------------------ seen

    def _still(self, random, count: int) -> np.ndarray:
        """Tubelets of a video in which nothing counts, filmed or rendered."""
        if self.films and random.random() < 0.35:
            name = list(self.films)[random.integers(len(self.films))]
            return film_excerpt(random, self.films[name], count)
        seconds, made_up = count * MICRO_TURN_SECONDS, self.config.made_up_motions
        shown = videos.still(random, self.split, seconds=seconds, made_up=made_up)
        return videos.tubelets(shown.frames)

    def _seen(self, random, kind: str) -> Scene:
        with_sound = random.random() < 0.45
        count = (
            self.config.video_micro_turns if with_sound else self.config.silent_video_micro_turns
        )
        tubelets, ends = None, ()
        if kind == "still":
            tubelets = self._still(random, count)
        else:
            seconds = count * MICRO_TURN_SECONDS
            if kind == "flashes":
                shown = videos.flashes(random, self.split, seconds=seconds)
            else:
                made_up = self.config.made_up_motions
                shown = videos.kicks(random, self.split, seconds=seconds, made_up=made_up)
            tubelets, ends = videos.tubelets(shown.frames), shown.event_ends
        wave, spoken = None, []
        if with_sound:
            wave = np.zeros(count * CHUNK, np.float32)
            if random.random() < 0.5:
                spoken = self._digits_between(random, wave, ends)
            self.add_noise(random, wave, always=random.random() < 0.4)
        answers = [
            Answer(first_border_after(end + self.config.event_delay), index, index, end, kind)
            for index, end in enumerate(ends, start=1)
        ]
        answers = sorted(answers + spoken, key=lambda answer: answer.micro_turn)
        return Scene(kind, count, wave, tubelets, tuple(answers), ())


def mel_bands(random, config: DataConfig) -> tuple[int, ...]:
    """Which band each band of a conversation is heard in: stretched, with some missing, or all."""
    bands = np.arange(BANDS)
    if random.random() < 0.5:
        stretched = np.round(bands * random.uniform(1 - config.warp, 1 + config.warp))
        bands = np.minimum(stretched.astype(int), BANDS - 1)
    if random.random() < config.masked_share:
        start = int(random.integers(BANDS))
        bands[start : start + int(random.integers(2, 12))] = -1
    return tuple(int(band) for band in bands)


def heard_chunks(sound: np.ndarray, arrivals) -> dict[int, list[AudioChunk]]:
    """dMel chunks by the micro-turn they come in, late ones first.

    A chunk is continued from the one before it only if that one came just before it; else it is
    heard after silence.
    """
    order = sorted((when, index) for index, when in enumerate(arrivals) if when >= 0)
    result: dict[int, list[AudioChunk]] = {}
    if [index for _, index in order] == list(range(len(arrivals))) and all(
        when == index for when, index in order
    ):
        levels = dmel(sound).reshape(len(arrivals), -1, 80)
        return {index: [AudioChunk(levels[index])] for index in range(len(arrivals))}
    last = -2
    for when, index in order:
        carry = np.zeros(CARRY, np.float32)
        if last == index - 1 and index > 0:
            carry = sound[index * CHUNK - CARRY : index * CHUNK]
        padded = np.concatenate([carry, sound[index * CHUNK : (index + 1) * CHUNK]])
        levels = dmel(padded)[CARRY // 800 :]
        result.setdefault(when, []).append(AudioChunk(levels, lateness=when - index))
        last = index
    return result


def micro_turns(scene: Scene, random: np.random.Generator) -> list[MicroTurn]:
    """A scene as micro-turns: heard and seen, and what is to be put out."""
    chunks = {} if scene.sound is None else heard_chunks(scene.sound, scene.arrivals)
    bands = np.asarray(scene.bands)
    chunks = {
        index: tuple(
            dataclasses.replace(chunk, bins=np.where(bands < 0, 0, chunk.bins[:, bands]))
            for chunk in heard
        )
        for index, heard in chunks.items()
    }
    outputs = speak(scene.answers, scene.micro_turns, random)
    return [
        MicroTurn(
            micro_turn=scene.first_micro_turn + index,
            video=None if scene.tubelets is None else scene.tubelets[index],
            audio=chunks.get(index, ()),
            text_out=outputs[index].tokens,
            speech=outputs[index].mel,
            text_weight=outputs[index].weight,
        )
        for index in range(scene.micro_turns)
    ]
