"""Agreement of ears, word errors, numbers, spans and intervals with independent packages.

In: `--reference`, the Python of an environment with `ears_requirements.txt`. Out: `ears.json`: per
part the number of cases and how many agree, or by how much the two differ.

    python experiments/scorer_agreement/ears.py --reference PYTHON

Two to four minutes on one core; extras `voices` and `eval`. Expected: counts agree in every case;
times of speech agree with voicebench's energy detector to some 0.05 s, and both with the truth.
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile

import numpy as np
import soundfile
from ears_scenes import Scene, scenes

from interaction.eval import intervals
from interaction.eval.ears import TwoPass, audible
from interaction.eval.normalise import normalise
from interaction.eval.number_words import digits, numbers_in
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run
from interaction.eval.spans import covered, iou, merge, overlaps, shared
from interaction.eval.speech_segments import speech_segments
from interaction.eval.word_errors import corpus_rate, word_errors

FOLDER = pathlib.Path(__file__).parent
WORDS = "the a cat dog seven boats lie near old harbour walls and we walk home".split()
RAW = (
    ("It's twenty-one cats, isn't it?", "its 21 cats isn't it"),
    ("We won't stop; they've gone.", "we will not stop they have gone"),
    ("I can't see one hundred and five boats.", "i cannot see 105 boats"),
    ("Um, there are, uh, three dogs.", "there are three docks"),
    ("You're right, that's the third house.", "you are right that is the 3rd house"),
    ("Mr. Smith paid 1,250 coins.", "mister smith paid 1250 coins"),
    ("She'd like 3.5 litres.", "she would like three point five litres"),
    ("He's [noise] here (laughs).", "he is here"),
    ("Nobody knows, okay?", "nobody knows ok"),
    ("I'll be there at nine thirty.", "i will be there at nine thirty"),
)  # fmt: skip


def cases() -> dict:
    """All cases without sound."""
    draw = random.Random(0)
    pairs = []
    for _ in range(2000):
        right = draw.choices(WORDS, k=draw.randint(1, 15))
        heard = [w if draw.random() < 0.7 else draw.choice(WORDS) for w in right]
        heard = [w for w in heard if draw.random() < 0.85]
        heard = [
            x for w in heard for x in ([w, draw.choice(WORDS)] if draw.random() < 0.1 else [w])
        ]
        pairs.append((" ".join(right), " ".join(heard)))
    spans = []
    for _ in range(500):
        groups = []
        for _ in range(2):
            starts = [draw.randint(0, 50_000) for _ in range(draw.randint(1, 6))]
            groups.append([(s / 1000, (s + draw.randint(1, 8_000)) / 1000) for s in starts])
        spans.append({"ones": groups[0], "others": groups[1], "gap": draw.randint(2, 3_000) / 1000})
    samples = np.random.default_rng(0)
    return {
        "word_errors": pairs,
        "numbers": [*range(1000), *(draw.randint(1000, 999_999) for _ in range(500))],
        "spans": spans,
        "intervals": {
            "shares": [(k, n) for n in (1, 5, 20, 100) for k in range(0, n + 1, max(1, n // 5))],
            "counts": [0, 1, 2, 5, 10, 30],
            "samples": [samples.gamma(2, 0.2, n).round(4).tolist() for n in (8, 20, 50, 200)],
        },
    }


def agreed(flags: list[bool]) -> dict:
    """Cases and how many agree."""
    return {"cases": len(flags), "agree": sum(flags)}


def largest(ours, theirs) -> dict:
    """Cases and the largest difference."""
    difference = np.abs(np.asarray(ours, float) - np.asarray(theirs, float))
    return {"cases": len(difference), "largest_difference": round(float(difference.max()), 6)}


def without_sound(asked: dict, answers: dict) -> dict:
    """Figures of the parts that need none."""
    errors = [word_errors(right.split(), heard.split()) for right, heard in asked["word_errors"]]
    theirs = answers["word_errors"]
    spelt = [digits(words) for words in answers["numbers"]["words"]]
    spans = list(zip(asked["spans"], answers["spans"], strict=True))
    ask, answer = asked["intervals"], answers["intervals"]
    shares = [intervals.share(k, n) for k, n in ask["shares"]]
    rates = [intervals.rate(k, 1.0) for k in ask["counts"]]
    medians = [intervals.bootstrap(x, draws=9_999) for x in ask["samples"]]
    widths = [b - a for a, b in answer["medians"]]
    ends = [
        abs(a - b) / width
        for m, pair, width in zip(medians, answer["medians"], widths, strict=True)
        for a, b in zip((m.low, m.high), pair, strict=True)
    ]
    return {
        "word errors, distance (jiwer)": agreed(
            [e.errors == sum(t[1:4]) for e, t in zip(errors, theirs, strict=True)]
        ),
        "word errors, kinds of one cheapest alignment (jiwer)": agreed(
            [[e.hits, e.substitutions, e.deletions, e.insertions] == t[:4]
             for e, t in zip(errors, theirs, strict=True)]
        ),
        "word error rate (voicebench)": agreed(
            [abs(e.rate - t[4]) < 1e-9 for e, t in zip(errors, theirs, strict=True)]
        ),
        "words to digits, the value (num2words)": agreed(
            [
                numbers_in(words) == [value]
                for words, value in zip(
                    answers["numbers"]["words"], asked["numbers"], strict=True
                )
            ]
        ),
        "words to digits, the text (text2num)": agreed(
            [a == b for a, b in zip(spelt, answers["numbers"]["digits"], strict=True)]
        ),
        "intersection over union (scipy, 1 ms grid)": agreed(
            [abs(_iou_of_groups(a) - b["iou"]) < 1e-6 for a, b in spans]
        ),
        "spans after closing gaps (scipy, 1 ms grid)": agreed(
            [len(merge(a["ones"], gap=a["gap"] + 1e-6)) == b["merged"] for a, b in spans]
        ),
        "overlaps (scipy, 1 ms grid)": agreed(
            [len(overlaps(a["ones"], a["others"])) == b["overlaps"] for a, b in spans]
        ),
        "seconds covered (scipy, 1 ms grid)": agreed(
            [abs(covered(a["ones"]) - b["covered"]) < 1e-6 for a, b in spans]
        ),
        "Wilson interval of a share (scipy)": largest(
            [[m.low, m.high] for m in shares], answer["shares"]
        ),
        "Poisson interval of a rate (scipy)": largest(
            [[m.low, m.high] for m in rates], answer["rates"]
        ),
        "bootstrap interval of a median (scipy), share of its width": {
            "cases": len(ends), "largest_difference": round(max(ends), 4)
        },
    }  # fmt: skip


def _iou_of_groups(case: dict) -> float:
    if len(case["ones"]) == len(case["others"]) == 1:
        return iou(case["ones"][0], case["others"][0])
    both = covered(overlaps(case["ones"], case["others"]))
    return both / covered([*case["ones"], *case["others"]])


def ours_of(scene: Scene, heard_start: float | None) -> dict:
    """Our own measures of one scene, three ways, in seconds."""
    result = {}
    for name, find in (("silero", speech_segments), ("audible", audible)):
        person, agent = find(scene.person), find(scene.agent)
        result[name] = _measures(scene, person, agent)
    start = heard_start if heard_start is None else [(heard_start, heard_start + 1.0)]
    person = speech_segments(scene.person)
    result["first word"] = _measures(scene, person, start or [])
    return result


def _measures(scene: Scene, person: list, agent: list) -> dict:
    agent = merge(agent, gap=0.25)
    onset, offset = person[0][0], person[-1][1]
    if scene.expect == "stop":
        begun = [span for span in agent if span[0] <= onset < span[1]]
        return {"latency": begun[0][1] - onset if begun else None, "overlap": _both(person, agent)}
    after = [span[0] for span in agent if span[0] > onset]
    return {"latency": after[0] - offset if after else None, "overlap": _both(person, agent)}


def _both(person: list, agent: list) -> float:
    return sum(shared(one, other) for one in person for other in agent)


def differences(ours: list, theirs: list) -> dict:
    """Figures of differences in seconds where both have a value."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    gap = np.array([a - b for a, b in pairs])
    return {
        "cases": len(ours),
        "both_or_neither": sum(
            (a is None) == (b is None) for a, b in zip(ours, theirs, strict=True)
        ),
        "median_signed": round(float(np.median(gap)), 4),
        "median_abs": round(float(np.median(np.abs(gap))), 4),
        "max_abs": round(float(np.abs(gap).max()), 4),
    }


def with_sound(all_scenes: list[Scene], measured: list[dict], answers: list[dict]) -> dict:
    """Figures of the parts with sound: ours against voicebench, each against the truth."""
    result = {}
    for expect, key in (("respond", "response_ms"), ("stop", "stop_ms")):
        chosen = [i for i, scene in enumerate(all_scenes) if scene.expect == expect]
        truth = [all_scenes[i].truth for i in chosen]
        values = [answers[i][key] for i in chosen]
        theirs = [None if v is None else v / 1000 for v in values]
        table = {"voicebench against truth": differences(theirs, truth)}
        for way in ("silero", "audible", "first word")[: 3 if expect == "respond" else 2]:
            mine = [measured[i][way]["latency"] for i in chosen]
            table[f"{way} against truth"] = differences(mine, truth)
            table[f"{way} against voicebench"] = differences(mine, theirs)
        result[f"{expect} latency, seconds"] = table
    exact = [
        abs(covered(overlaps(a["person"], a["agent"])) * 1000 - a["overlap_ms"]) < 0.11
        for a in answers
    ]
    result["overlap of voicebench's own segments"] = agreed(exact)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", required=True, help="Python of the other environment")
    options = parser.parse_args()
    asked, all_scenes = cases(), scenes()
    ears = TwoPass()
    runs = [
        Run("", "", s.name, "", len(s.agent) / SAMPLE_RATE, (OutputEvent(0, Kind.AUDIO, s.agent),))
        for s in all_scenes
    ]
    ears.prepare(runs, [Clock.INSTANT])
    heard = [ears.words(run, Clock.INSTANT) for run in runs]
    said = [
        (s.text, " ".join(w.text for w in h))
        for s, h in zip(all_scenes, heard, strict=True)
        if s.text
    ]
    asked["rates"] = [*RAW, *said]
    starts = [words[0].start if words else None for words in heard]
    with tempfile.TemporaryDirectory() as folder:
        asked["scenes"] = [_written(scene, i, folder) for i, scene in enumerate(all_scenes)]
        command = [options.reference, str(FOLDER / "ears_reference.py")]
        done = subprocess.run(command, input=json.dumps(asked).encode(), stdout=-1, check=True)
    answers = json.loads(done.stdout)
    measured = [ours_of(scene, start) for scene, start in zip(all_scenes, starts, strict=True)]
    errors = [word_errors(right, heard) for right, heard in asked["rates"]]
    both = zip(asked["rates"], errors, answers["rates"]["errors"], strict=True)
    texts = [normalise(right) for right, _ in asked["rates"]]
    pairs = list(zip(texts, answers["rates"]["normalised"], strict=True))
    result = {
        "packages": answers["versions"],
        "counts": without_sound(asked, answers),
        "word error rate after normalising": {
            "pairs": len(asked["rates"]),
            "ours": round(corpus_rate(errors), 4),
            "jiwer after Whisper's normaliser": round(answers["rates"]["rate"], 4),
            "said, heard, our errors, theirs, where these differ": [
                [*pair, mine.errors, theirs] for pair, mine, theirs in both if mine.errors != theirs
            ],
            "texts normalised alike": sum(a == b for a, b in pairs),
            "texts that differ": sorted({(a, b) for a, b in pairs if a != b}),
        },
        "sound": with_sound(all_scenes, measured, answers["scenes"]),
        "words of the scenes by path": {p.value: n for p, n in ears.paths().items()},
    }
    (FOLDER / "ears.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _written(scene: Scene, index: int, folder: str) -> dict:
    """The scene's tracks as files, 16-bit, and what is known of it."""
    files = {}
    for name in ("person", "agent"):
        files[name] = f"{folder}/{index}_{name}.wav"
        soundfile.write(files[name], getattr(scene, name), SAMPLE_RATE, subtype="PCM_16")
    return {"name": scene.name, "expect": scene.expect, "turn": scene.turn, **files}


if __name__ == "__main__":
    main()
