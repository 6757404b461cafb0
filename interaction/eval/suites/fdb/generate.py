"""Small spoken sets in the layouts of Full-Duplex-Bench v1 and v1.5, seeded.

In: a folder, samples per scene, a seed, who speaks. Out: `{scene}/{ID}/` with sounds and the
scene's JSON. Folders are called `generated_*`: they are ours, not the authors' data. Needs the
`voices` extra, and the program flite where its voices are asked for.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from interaction.data import voices
from interaction.data.voices import EspeakVoice
from interaction.eval.records import SAMPLE_RATE
from interaction.eval.suites.fdb import world
from interaction.eval.suites.fdb.layout import write_json, write_sound

Voice = voices.EspeakVoice | voices.PiperStyle | voices.FliteVoice
ESPEAK = tuple(
    EspeakVoice(name, rate=rate, pitch=pitch)
    for name, rate, pitch in (
        ("en-us+Denis", 165, 45),
        ("en-us+belinda", 160, 55),
        ("en-us+edward", 150, 50),
        ("en-us+robert", 170, 60),
    )
)
SPEAKERS: dict[str, tuple[Voice, ...]] = {
    "espeak": ESPEAK,
    "piper": tuple(voices.PiperStyle(length_scale=scale) for scale in (1.0, 1.1, 1.2, 1.3)),
    "flite": tuple(voices.FliteVoice(name) for name in voices.FLITE_VOICES),
}
BYSTANDER = EspeakVoice("en-gb-x-rp+benjamin", rate=175, pitch=30)
LEAD = 0.4
BIN = 0.2


def a_voice(random: np.random.Generator, engines: Sequence[str]) -> Voice:
    """One of four voices of each engine."""
    users = [voice for engine in engines for voice in SPEAKERS[engine]]
    return users[random.integers(len(users))]


def spoken(text: str, voice: Voice, *, level: float = 0.1) -> np.ndarray:
    """A sentence without silence around it; float32 ``[W]`` at 16 kHz, `level` its RMS."""
    sound = voices.say(text, voice)
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.max(np.abs(sound)))
    sound = sound[loud[0] : loud[-1] + 1]
    return (sound * (level / np.sqrt(np.mean(sound**2)))).astype(np.float32)


def placed(pieces: Sequence[tuple[float, np.ndarray]], seconds: float) -> np.ndarray:
    """Sounds at their times, added up, in so many seconds."""
    result = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for start, sound in pieces:
        at = round(start * SAMPLE_RATE)
        result[at : at + len(sound)] += sound[: len(result) - at]
    return result


def length(sound: np.ndarray) -> float:
    """Seconds."""
    return len(sound) / SAMPLE_RATE


def stamp(start: float, end: float) -> list[float]:
    """Times as they stand in a file."""
    return [round(start, 4), round(end, 4)]


# ---------------------------------------------------------------- version 1


def pause_handling(folder: pathlib.Path, random: np.random.Generator, voice: Voice) -> None:
    """A request with a silence of 1 to 2 s in its middle; the sound ends with the request."""
    asked = world.request(random)
    first, second = spoken(asked.lead, voice), spoken(asked.rest, voice)
    begin = LEAD + length(first)
    resume = begin + float(random.uniform(1.0, 2.0))
    end = resume + length(second)
    write_sound(folder / "input.wav", placed([(LEAD, first), (resume, second)], end))
    pause = {"text": "[PAUSE]", "timestamp": stamp(begin, resume)}
    write_json(folder / "pause.json", [pause])
    chunks = [
        {"text": asked.lead, "timestamp": stamp(LEAD, begin)},
        {"text": asked.rest, "timestamp": stamp(resume, end)},
    ]
    write_json(folder / "transcription.json", {"text": asked.text, "chunks": chunks})
    write_json(folder / "answer.json", {"answer": asked.answer, "key": asked.key})


def turn_taking(folder: pathlib.Path, random: np.random.Generator, voice: Voice) -> None:
    """A request with a clear end and 4 s of silence for the answer."""
    asked = world.request(random)
    sound = spoken(asked.text, voice)
    end = LEAD + length(sound)
    write_sound(folder / "input.wav", placed([(LEAD, sound)], end + 4.0))
    turn = {"text": "[TURN-TAKING]", "timestamp": stamp(end, end + 4.0)}
    write_json(folder / "turn_taking.json", [turn])
    write_json(folder / "answer.json", {"answer": asked.answer, "key": asked.key})


def backchannel(folder: pathlib.Path, random: np.random.Generator, voice: Voice) -> list[float]:
    """A story; silences of 0.9 s after its sentences invite a listener's "yeah".

    Returns:
        How likely it is that a listener makes a sound, per 0.2 s, summing to 1: what 20 imagined
        listeners do, each after 7 of 10 sentences, 0.1 to 0.5 s after their end, for 0.3 s.
    """
    order = random.permutation(len(world.STORY))[:6]
    pieces, now, spots = [], LEAD, []
    for index in order:
        sound = spoken(world.STORY[index], voice)
        pieces.append((now, sound))
        spots.append(now + length(sound))
        now += length(sound) + 0.9
    seconds = now
    write_sound(folder / "input.wav", placed(pieces, seconds))
    write_json(folder / "spots.json", [round(spot, 4) for spot in spots])
    histogram = np.full(int(seconds / BIN) + 1, 1e-10)
    for _ in range(20):
        for spot in spots:
            if random.random() < 0.7:
                start = spot + random.uniform(0.1, 0.5)
                histogram[int(start / BIN) : int((start + 0.3) / BIN) + 1] += 1
    return (histogram / histogram.sum()).tolist()


def user_interruption(folder: pathlib.Path, random: np.random.Generator, voice: Voice) -> None:
    """A request that takes long to answer, and 3.5 s later another one; 4.5 s for its answer."""
    asked = world.request_without_numbers(random)
    context, interrupt = spoken(world.COUNTING, voice), spoken(asked.text, voice)
    start = LEAD + length(context) + 3.5
    end = start + length(interrupt)
    write_sound(folder / "input.wav", placed([(LEAD, context), (start, interrupt)], end + 4.5))
    write_sound(folder / "context.wav", context)
    write_sound(folder / "interrupt.wav", interrupt)
    entry = {
        "context": world.COUNTING,
        "interrupt": asked.text,
        "timestamp": stamp(start, end),
        "context_end": round(LEAD + length(context), 4),
        "answer": asked.answer,
        "key": asked.key,
    }
    write_json(folder / "interrupt.json", [entry])


def write_v1(root: pathlib.Path, *, size: int, seed: int, engines: Sequence[str]) -> None:
    """The four scenes of version 1."""
    distributions = {}
    for place, (scene, make) in enumerate(V1_SCENES.items()):
        for number in range(1, size + 1):
            random = np.random.default_rng([seed, 1, place, number])
            given = make(root / scene / str(number), random, a_voice(random, engines))
            if given is not None:
                distributions[str(number)] = given
    write_json(root / "generated_gt_distribution.json", distributions)


V1_SCENES = {
    "generated_pause_handling": pause_handling,
    "generated_turn_taking": turn_taking,
    "generated_backchannel": backchannel,
    "generated_user_interruption": user_interruption,
}


# ---------------------------------------------------------------- version 1.5


def _overlap(scene: str, random: np.random.Generator, voice: Voice):
    """Text of the overlap, its sound, the answer it asks for and that answer's key word."""
    asked = world.request_without_numbers(random)
    if scene == "user_interruption":
        return asked.text, spoken(asked.text, voice), asked.answer, asked.key
    if scene == "user_backchannel":
        text = world.BACKCHANNELS[random.integers(len(world.BACKCHANNELS))]
        return text, spoken(text, voice), "", ""
    if scene == "talking_to_other":
        name = world.TO_OTHERS[random.integers(len(world.TO_OTHERS))]
        text = f"{name} {asked.rest}"
        return text, spoken(text, voice, level=0.06), "", asked.key
    return asked.text, spoken(asked.text, BYSTANDER, level=0.02), "", asked.key


V15_SCENES = ("user_interruption", "user_backchannel", "talking_to_other", "background_speech")


def write_v15(root: pathlib.Path, *, size: int, seed: int, engines: Sequence[str]) -> None:
    """The four overlap scenes: a request that takes long to answer, 3 s, the overlap, 5 s."""
    for place, scene in enumerate(V15_SCENES):
        for number in range(1, size + 1):
            random = np.random.default_rng([seed, 15, place, number])
            voice = a_voice(random, engines)
            context = spoken(world.COUNTING, voice)
            text, overlap, answer, key = _overlap(scene, random, voice)
            start = LEAD + length(context) + 3.0
            end = start + length(overlap)
            folder, seconds = root / f"generated_{scene}" / str(number), end + 5.0
            write_sound(folder / "clean_input.wav", placed([(LEAD, context)], seconds))
            both = placed([(LEAD, context), (start, overlap)], seconds)
            write_sound(folder / "input.wav", both)
            entry = {
                "context_text": world.COUNTING,
                "current_turn_text": text,
                "timestamps": stamp(start, end),
                "context_end": round(LEAD + length(context), 4),
                "user_speech": [stamp(LEAD, LEAD + length(context)), stamp(start, end)],
                "answer": answer,
                "key": key,
            }
            write_json(folder / "metadata.json", entry)
