"""Time: speaking at a time asked for, saying how long something took, speaking at a cue.

In: a `Script`. Out: it has grown by one episode. Behaviours 3 and 4 of the curriculum: TimeSpeak
and CueSpeak in small.

The model works in the open. What an instruction asks for is shown (`write`, never spoken) while it
is still being said, so that nothing has to be kept that is not written down, and a user sees that
he was understood. Once a second it shows how many seconds are left, or how many have gone by: a
wait of eight seconds so becomes eight steps of one, each within reach of the local layers. Words
that might be the cue, and numbers that are checked, are shown as they are heard.
"""

from collections.abc import Iterable

from interaction.data.curriculum import lexicon as words
from interaction.data.curriculum.script import ANSWER_DELAY, Said, Script
from interaction.data.curriculum.talking import question
from interaction.microturn import MICRO_TURN_SECONDS, first_border_after, output_seconds

SECOND = round(1 / MICRO_TURN_SECONDS)  # micro-turns in one


def _pick(script: Script, choices) -> str:
    return str(script.random.choice(list(choices)))


def _clock(script: Script, begins: int, numbers: Iterable[int], until: float) -> None:
    """Shows one number a second from micro-turn `begins` on.

    What would come before or while the model says its last word so far is left out, and so is all
    from the micro-turn on that answers what ends at `until` seconds.
    """
    last = first_border_after(until + ANSWER_DELAY)
    for second, number in enumerate(numbers):
        here = begins + second * SECOND
        if here < last and (not script.due or here >= script.due[-1].ends):
            script.answer("clock", output_seconds(here), delay=0.0, write=str(number))


def _understood(script: Script, said: Said, seconds: int, word: str) -> None:
    """Shows number and word of an instruction, each as soon as it is heard, and the number again
    when the wait begins."""
    ends = {text: end for text, _, end in said.words if end < said.end - 0.05}
    for text, shown in ((words.NUMBERS[seconds], str(seconds)), (word, word)):
        if text in ends:
            script.answer("shown", ends[text], write=shown)
    begins = output_seconds(first_border_after(said.end + ANSWER_DELAY))
    script.answer("clock", begins, delay=0.0, write=str(seconds))
    if word not in ends:
        script.answer("shown", said.end + MICRO_TURN_SECONDS, write=word)


def in_seconds(script: Script) -> None:
    """ "In N seconds say W"; now and then a question comes meanwhile."""
    seconds = int(script.random.integers(2, 9))
    word = _pick(script, words.REPEATABLE)
    said = script.instruct(f"in {words.NUMBERS[seconds]} seconds say {word}")
    end = said.end
    script.note("in seconds", end, end + seconds, word)
    _understood(script, said, seconds, word)
    begins = first_border_after(end + ANSWER_DELAY)
    over = output_seconds(begins + seconds * SECOND)
    left = range(seconds - 1, 0, -1)
    if seconds >= 6 and script.random.random() < 0.4:
        script.now = max(script.now, end)
        script.wait(0.3, 0.6)
        first, rest, reply = question(script)
        asked = script.ask(f"{first} {rest}")
        if asked < end + seconds - 1.5:
            _clock(script, begins + SECOND, left, asked)
            script.answer("turn", asked, say=reply)
    _clock(script, begins + SECOND, left, over)
    script.answer("in seconds", over, delay=0.0, say=word)
    script.settle()


def every_seconds(script: Script) -> None:
    """ "Every N seconds say W until I say stop"."""
    seconds = int(script.random.integers(2, 5))
    times = int(script.random.integers(2, 5))
    word = _pick(script, words.REPEATABLE)
    said = script.instruct(f"every {words.NUMBERS[seconds]} seconds say {word} until I say stop")
    _understood(script, said, seconds, word)
    begins = first_border_after(said.end + ANSWER_DELAY)
    for index in range(1, times + 1):
        script.note("every seconds", said.end, said.end + index * seconds, word)
        over = begins + seconds * SECOND
        _clock(script, begins, range(seconds, 0, -1), output_seconds(over))
        script.answer(
            "every seconds", output_seconds(over), delay=0.0, write=str(seconds), say=word
        )
        begins = over
    script.now = script.speech_ends()
    script.wait(0.1, max(0.2, seconds - 1.6))
    said = script.hear("stop")
    script.note("stop", said.start, said.end)
    _clock(script, begins, range(seconds, 0, -1), said.end)
    script.wait(seconds + 0.2, seconds + 0.8)


def how_long(script: Script) -> None:
    """The user starts and stops a clock; the model says how many seconds it was."""
    begin = script.ask("start the clock")
    begins = first_border_after(begin + ANSWER_DELAY)
    script.now = max(script.now, begin)
    seconds = int(script.random.integers(2, 9))
    target = begin + seconds + float(script.random.uniform(-0.25, 0.25))
    stop = "stop the clock"
    script.now = max(script.now + 0.3, target - 0.9)
    end = script.ask(stop)
    took = max(1, min(12, round(end - begin)))
    script.note("how long", begin, end, words.NUMBERS[took])
    _clock(script, begins, range(took + 1), end)
    script.answer("how long", end, say=words.NUMBERS[took])
    script.settle()


def cue(script: Script) -> None:
    """ "Say now when I say W": the cue comes in the middle of talk that goes on."""
    word = _pick(script, words.CUES)
    end = script.ask(f"say now when I say {word}")
    script.answer("shown", end, write=word)
    script.now = max(script.now, end)
    script.wait(0.5, 1.0)
    others = [w for w in (*words.CUES, *words.FILLING[script.split]) if w != word]
    count = int(script.random.integers(5, 10))
    places = set(script.random.choice(range(1, count - 1), int(script.random.integers(1, 3))))
    for index in range(count):
        is_cue = index in places and (index - 1) not in places
        text = word if is_cue else _pick(script, others)
        said = script.hear(text)
        if is_cue:
            script.note("cue", said.start, said.end, word)
            script.answer("cue", said.end, write=word, say="now")
        elif text in words.CUES:
            script.answer("heard", said.end, write=text)
        script.wait(0.12, 0.4)
    said = script.hear("thank you")
    script.settle()


def check_counting(script: Script) -> None:
    """The user counts and makes a mistake; the model says the right number as it is made."""
    end = script.ask("check my counting")
    script.now = max(script.now, end)
    script.wait(0.4, 0.8)
    start, length = int(script.random.integers(1, 4)), int(script.random.integers(4, 7))
    wrong_at = int(script.random.integers(1, length)) if script.random.random() < 0.8 else -1
    for index in range(length):
        right = start + index
        number = right
        if index == wrong_at:
            number = int(script.random.choice([n for n in range(1, 11) if n != right]))
        said = script.hear(words.NUMBERS[number])
        if number != right:
            script.note("mistake", said.start, said.end, words.NUMBERS[right])
            script.answer("correct", said.end, write=str(number), say=words.NUMBERS[right])
        else:
            script.answer("heard", said.end, write=str(number))
        script.wait(0.25, 0.6)
    said = script.hear("thank you")
    script.settle()
