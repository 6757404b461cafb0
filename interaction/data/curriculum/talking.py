"""Turn-taking: answers, pauses, talk for others, stopping, listening aloud, refusing.

In: a `Script`. Out: it has grown by one episode. Behaviours 1, 2 and 8 of the curriculum.
"""

from interaction.data.curriculum import lexicon as words
from interaction.data.curriculum.script import ANSWER_DELAY, Script
from interaction.microturn import MICRO_TURN_SECONDS

COUNT_EVERY = 4  # micro-turns from one number to the next when counting aloud
LONG_PAUSE = (0.6, 1.6)


def _pick(script: Script, choices) -> str:
    return str(script.random.choice(list(choices)))


def question(script: Script) -> tuple[str, str, str]:
    """A question in two parts, between which one may hesitate, and its answer."""
    kind = script.random.random()
    if kind < 0.45:
        number = int(script.random.integers(0, 10))
        return "what comes after", words.NUMBERS[number], words.NUMBERS[number + 1]
    if kind < 0.75:
        word = _pick(script, words.REPEATABLE)
        return "please say", word, word
    word = _pick(script, words.OPPOSITES)
    return "the opposite of", word, words.OPPOSITES[word]


def digits(script: Script) -> None:
    """Single spoken digits: each is written down and the next number said."""
    for _ in range(int(script.random.integers(1, 4))):
        value, said = script.digit()
        script.answer("digit", said.end, write=str(value), say=words.NUMBERS[value + 1])
        script.now = max(script.now, script.due[-1].border)
        script.wait(0.25, 1.4)
    script.settle()


def ask(script: Script) -> None:
    """A question, answered at once."""
    first, rest, reply = question(script)
    end = script.ask(f"{first} {rest}")
    script.note("question", end, end, reply)
    script.answer("turn", end, say=reply)
    script.settle()


def pause(script: Script) -> None:
    """A question with a hesitation before its last word: not to be answered inside."""
    first, rest, reply = question(script)
    start = script.hear(first)
    script.wait(*LONG_PAUSE)
    last = script.hear(rest)
    script.note("pause", start.end, last.start, reply)
    script.answer("pause", last.end, say=reply)
    script.settle()


def for_others(script: Script) -> None:
    """The user, or somebody else, speaks to another person; then, perhaps, to the model."""
    name = _pick(script, words.OTHERS[script.split])
    first, rest, _ = question(script)
    by = script.user if script.random.random() < 0.6 else script.other
    said = script.hear(f"{name}, {first} {rest}", by=by)
    script.note("for others", said.start, said.end)
    script.wait(1.0, 2.0)
    if script.random.random() < 0.4:
        ask(script)


def count_aloud(script: Script) -> None:
    """The model counts; it stops when told to, and goes on through a listener's humming."""
    goal = int(script.random.integers(3, 11))
    start = script.ask(f"count to {words.NUMBERS[goal]}")
    due = script.answer("count aloud", start, say="one")
    for number in range(2, goal + 1):
        at = due.border + (number - 1) * COUNT_EVERY * MICRO_TURN_SECONDS
        script.answer("count aloud", at, delay=0.0, say=words.NUMBERS[number])
    length = goal * COUNT_EVERY * MICRO_TURN_SECONDS
    kind = script.random.random()
    at = due.border + float(script.random.uniform(0.2, 0.85)) * length
    if kind < 0.45:
        said = script.hear("stop", at=at)
        script.interrupt(said.end)
        script.note("stop", said.start, said.end)
        script.now = said.end
    elif kind < 0.8:
        said = script.hear(_pick(script, words.LISTENING[script.split]), at=at)
        script.note("listener", said.start, said.end)
    script.settle(0.6, 1.2)


def story(script: Script) -> None:
    """The user tells a story; the model shows after each part that it listens."""
    start = script.ask("let me tell you a story")
    script.now = max(script.now, start)
    script.wait(0.4, 0.8)
    for _ in range(int(script.random.integers(2, 4))):
        said = script.hear(_pick(script, words.STORY[script.split]))
        script.note("story", said.start, said.end)
        script.answer("backchannel", said.end, delay=0.3, say=words.BACKCHANNEL)
        script.now = script.due[-1].border
        script.wait(0.5, 0.9)
    said = script.hear("that is the end")
    script.answer("turn", said.end, say="okay")
    script.settle()


def requests(script: Script) -> None:
    """A request that is forbidden, or one that sounds like it and is not.

    A word that makes a danger harmless is shown (`write`) as it is heard.
    """
    random, split = script.random, script.split
    if random.random() < 0.5:
        text = _pick(script, words.REFUSED).format(danger=_pick(script, words.DANGERS[split]))
        end = script.ask(text)
        script.note("forbidden", end, end, text)
        script.answer("refuse", end, say="sorry")
    else:
        if random.random() < 0.4:
            danger = _pick(script, words.DANGERS[split])
            text = _pick(script, words.ALLOWED_DANGER).format(danger=danger)
        else:
            thing = _pick(script, words.HARMLESS[split])
            text = _pick(script, words.ALLOWED).format(thing=thing)
        said = script.instruct(text)
        for word, _, over in said.words:
            if word in words.CARE:
                script.answer("shown", over, write="safe")
        end = said.end
        script.note("harmless", end, end, text)
        script.answer("help", end, say="sure")
    script.settle()


def chatter(script: Script) -> None:
    """Sentences that ask for nothing."""
    said = script.hear(_pick(script, words.STORY[script.split]))
    script.note("chatter", said.start, said.end)
    script.wait(0.8 + ANSWER_DELAY, 1.6)
