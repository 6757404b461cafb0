"""A small spoken set in the layout of Full-Duplex-Bench v3: requests that need tools.

In: a folder, a size, a seed. Out: `{example_id}_{24 hex digits}/` with `input.wav` and
`metadata.json`, and `benchmark_data_generated.json` with all scenarios. Every second request takes
something back half-way. Needs the `voices` extra.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np

from interaction.eval.suites.fdb.generate import (
    LEAD,
    a_voice,
    length,
    placed,
    spoken,
    stamp,
)
from interaction.eval.suites.fdb.layout import write_json, write_sound
from interaction.eval.suites.fdb.world import NUMBERS

_CITIES = ("London", "Boston", "Paris", "Madrid")
_CARDS = ("gold", "silver", "platinum")
_DAYS = ("Monday", "Tuesday", "Friday")


@dataclasses.dataclass(frozen=True)
class Wish:
    """One thing wanted: what is said, what is said after a correction, the call, the reply.

    Attributes:
        said: the request.
        corrected: the end of the sentence that replaces `wrong` by the right value.
        call: what must be called.
        stale: the call that the first half of the sentence asked for.
        reply: what is said with the tool's result in hand.
        key: the word of it that comes from the result.
    """

    domain: str
    said: str
    corrected: str
    call: dict
    stale: dict
    reply: str
    key: str


def _two(random: np.random.Generator, values) -> tuple:
    first, second = random.permutation(len(values))[:2]
    return values[first], values[second]


def _track(random) -> Wish:
    right, wrong = (int(n) for n in random.permutation(np.arange(2, 20))[:2])
    call = lambda n: {"function": "track_order", "args": {"order_id": str(n)}}
    return Wish(
        "ecommerce_support",
        "Please track order number {}.",
        f"Please track order number {NUMBERS[wrong]}, sorry, I mean number {NUMBERS[right]}.",
        call(right),
        call(wrong),
        "Your order has been shipped.",
        "shipped",
    )


def _flight(random) -> Wish:
    (right, wrong), day = _two(random, _CITIES), _DAYS[random.integers(3)]
    call = lambda city: {"function": "search_flights", "args": {"destination": city, "date": day}}
    return Wish(
        "travel_identity",
        f"Find a flight to {{}} on {day}.",
        f"Find a flight to {wrong}, no wait, to {right}, on {day}.",
        call(right),
        call(wrong),
        "There is one that leaves at noon.",
        "noon",
    )


def _card(random) -> Wish:
    right, wrong = _two(random, _CARDS)
    call = lambda card: {"function": "get_card_benefits", "args": {"card_type": card}}
    return Wish(
        "finance_billing",
        "What do I get with the {} card?",
        f"What do I get with the {wrong} card, or rather the {right} card?",
        call(right),
        call(wrong),
        "That card comes with insurance.",
        "insurance",
    )


def _flat(random) -> Wish:
    (right, wrong), rooms = _two(random, _CITIES), int(random.integers(1, 4))

    def call(city):
        args = {"city": city, "bedrooms": rooms, "max_price": 1000}
        return {"function": "search_apartments", "args": args}

    rest = f"with {NUMBERS[rooms]} bedrooms for at most one thousand dollars."
    return Wish(
        "housing_location",
        f"Find flats in {{}} {rest}",
        f"Find flats in {wrong}, actually in {right}, {rest}",
        call(right),
        call(wrong),
        "I found three flats for you.",
        "three",
    )


_WISHES = (_track, _flight, _card, _flat)


def _value(wish: Wish) -> str:
    """What stands in the gap of the plain request."""
    args = wish.call["args"]
    first = next(iter(args.values()))
    return NUMBERS[int(first)] if first.isdigit() else first


def scenario(number: int, random: np.random.Generator) -> tuple[dict, list[str]]:
    """The metadata of one recording without its times, and the sentences to say.

    Numbers 1, 2, 3, 4 ... ask for 1, 1, 2, 3, 1, 1, 2, 3 ... calls; even ones correct themselves.
    """
    count = (1, 1, 2, 3)[(number - 1) % 4]
    corrects = number % 2 == 0
    makers = [_WISHES[k] for k in random.permutation(len(_WISHES))[:count]]
    wishes = [make(random) for make in makers]
    plain = [wish.said.format(_value(wish)) for wish in wishes]
    sentences = [wishes[0].corrected if corrects else plain[0], *plain[1:]]
    reply = " ".join(wish.reply for wish in wishes)
    domain = wishes[0].domain
    entry = {
        "id": f"{domain.split('_')[0]}_{number:02d}",
        "domain": domain,
        "title": f"{count} call(s)" + (" after a correction" if corrects else ""),
        "difficulty": ("easy", "medium", "hard")[count - 1],
        "disfluency_features": ["SELF_CORRECTION"] if corrects else [],
        "state_rollback_test": corrects,
        "dialogue": [{"user": " ".join(sentences), "ai": reply}],
        "expected_tool_calls": [wish.call for wish in wishes],
        "superseded_tool_calls": [wishes[0].stale] if corrects else [],
        "keys": [wish.key for wish in wishes],
    }
    return entry, sentences


def write_v3(root: pathlib.Path, *, size: int, seed: int, engines: Sequence[str]) -> None:
    """`size` recordings of each of four kinds: one call, one corrected, two, three corrected."""
    scenarios = []
    for number in range(1, 4 * size + 1):
        random = np.random.default_rng([seed, 3, number])
        voice = a_voice(random, engines)
        entry, sentences = scenario(number, random)
        pieces, chunks, now = [], [], LEAD
        for sentence in sentences:
            sound = spoken(sentence, voice)
            pieces.append((now, sound))
            end = now + length(sound)
            chunks.append({"text": sentence, "timestamp": stamp(now, end)})
            now = end + 0.3
        entry["input_asr_chunks"] = chunks
        speaker = hashlib.sha256(getattr(voice, "name", str(voice)).encode()).hexdigest()[:24]
        folder = root / f"{entry['id']}_{speaker}"
        write_sound(folder / "input.wav", placed(pieces, chunks[-1]["timestamp"][1] + 0.4))
        write_json(folder / "metadata.json", entry)
        scenarios.append(entry)
    content = {"benchmark_name": "generated requests in the layout of FDB-v3"}
    write_json(root / "benchmark_data_generated.json", content | {"scenarios": scenarios})
