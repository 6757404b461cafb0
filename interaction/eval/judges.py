"""Judges: who says whether an answer is right where no formula does.

In: a `Question`. Out: a `Verdict`, always one of the question's choices, with its reason. Three
kinds: `ClosedAnswer` compares with the reference by rules and says so when it cannot tell,
`Endpoint` asks any server that speaks the OpenAI chat protocol, `LocalModel` any function from
prompt to text. A judge that cannot tell gives the last choice, the worst, and a reason that begins
with `CANNOT_TELL`.
"""

import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import re
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from interaction.eval.normalise import words
from interaction.eval.number_words import numbers_in
from interaction.eval.suite import Question, Verdict

CANNOT_TELL = "cannot tell"
_MARKED = (
    r"(?:final answer|answer|verdict|rating|score|judge?ment|grade|label)\W+(?:(?:is|was)\W+)?"
)
_OPPOSITES = (("yes", "no"), ("true", "false"), ("valid", "invalid"), ("correct", "incorrect"))
_CLOSED = {word: pair for pair in _OPPOSITES for word in pair}


def choice_in(text: str, choices: Sequence[str]) -> str | None:
    """The one of `choices` that a model's reply settles on, None if that is not plain.

    In this order: the whole reply; a value of a JSON object in it (true and false are yes and no);
    the last that follows a word such as "verdict:"; the whole first or last line; the only one
    that occurs. Case and marks do not count; the five of "4/5" and "4 out of 5" is none.
    """
    names = {_plain(choice): choice for choice in choices}
    for whole in (text, *_json_values(text)):
        if _plain(whole) in names:
            return names[_plain(whole)]
    text = re.sub(r"(\d)\s*(?:/|out of)\s*\d+", r"\1", text)
    either = "|".join(re.escape(c) for c in sorted(choices, key=len, reverse=True))
    marked = re.findall(rf"\b{_MARKED}({either})(?!\w)", text, re.IGNORECASE)
    if marked:
        return names[_plain(marked[-1])]
    lines = [line for line in text.splitlines() if _plain(line)]
    for line in (lines[:1] + lines[-1:]) if len(lines) > 1 else ():
        if _plain(line) in names:
            return names[_plain(line)]
    found = re.findall(rf"(?<!\w)(?:{either})(?!\w)", text, re.IGNORECASE)
    different = {_plain(one) for one in found}
    return names[different.pop()] if len(different) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"^[\W_]+|[\W_]+$", "", text.lower())


def _json_values(text: str) -> list[str]:
    """Values of the first JSON object in a reply, as text."""
    start = text.find("{")
    if start < 0:
        return []
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start:])
    except json.JSONDecodeError:
        return []
    return [
        {True: "yes", False: "no"}[one] if isinstance(one, bool) else str(one)
        for one in value.values()
    ]


def _cannot_tell(question: Question, why: str) -> Verdict:
    return Verdict(question.choices[-1], f"{CANNOT_TELL}: {why}")


@dataclasses.dataclass(frozen=True)
class ClosedAnswer:
    """Compares with the reference by rules: the same every time, for closed answers only.

    A number is compared with the answer's number (the one behind "answer is", else the last), a
    word of a pair such as yes and no with the one that the answer settles on ("not valid" is
    invalid), a letter in brackets with the answer's letter; other references must occur in the
    answer word for word. Whatever it cannot read that way is not right: its reason says which
    verdicts mean that.
    """

    name: str = "closed answers by rule"

    def verdict(self, question: Question) -> Verdict:
        """The first (best) choice if the answer is the reference, else the last (worst).

        Of a scale nothing between them is given: a closed answer is right or wrong.
        """
        if not _anything(question.answer):
            return Verdict(question.choices[-1], "nothing was answered")
        if not _anything(question.reference):
            return _cannot_tell(question, "the question has no reference")
        kind, given = _given(question.answer, question.reference)
        if given is None:
            return _cannot_tell(question, f"{kind} expected in {question.answer!r}")
        right = given is True or given == _reference_value(question.reference)
        held = "holds" if right else "does not hold"
        reason = f"{kind}: the answer {held} {question.reference!r}"
        return Verdict(question.choices[0 if right else -1], reason)


def _anything(text: str) -> bool:
    """Whether there are words in a text, those in brackets too."""
    return bool(words(re.sub(r"[()\[\]<>]", " ", text)))


def _reference_value(reference: str) -> str | float:
    numbers = numbers_in(reference)
    letter = _letter(reference)
    if letter:
        return letter
    if len(numbers) == 1 and len(words(reference)) == 1:
        return float(numbers[0])
    return " ".join(words(reference))


def _letter(text: str) -> str | None:
    """``B`` of "(B)", "B." or "B" alone."""
    match = re.fullmatch(r"\s*\(?([A-Z])[).]?\s*", text)
    return match[1] if match else None


def _given(answer: str, reference: str) -> tuple[str, str | float | bool | None]:
    """What kind the reference is of, and the answer's value of that kind; None: not readable."""
    wanted = _reference_value(reference)
    if not isinstance(wanted, str):
        tail = re.split(rf"\b{_MARKED}", answer, flags=re.IGNORECASE)[1:]
        marked = numbers_in(tail[-1])[:1] if tail else []
        found = marked or numbers_in(answer)[-1:]
        return "number", float(found[0]) if found else None
    if _letter(reference):
        bracketed = re.findall(r"\(([A-Z])\)", answer)
        alone = [x for x in [_letter(answer)] if x] or bracketed
        marked = re.findall(rf"\b(?i:{_MARKED})\(?([A-Z])\b", answer)
        found = alone if len(set(alone)) == 1 else marked[-1:]
        return "letter", found[0] if found else None
    if wanted in _CLOSED:
        return "one of " + "/".join(_CLOSED[wanted]), _one_of(_CLOSED[wanted], answer)
    said = words(answer)
    size = len(wanted.split())
    places = [i for i in range(len(said)) if " ".join(said[i : i + size]) == wanted]
    return "words", any(not _denied(said, place) for place in places)


def _denied(said: Sequence[str], place: int) -> bool:
    return place > 0 and said[place - 1] in ("not", "never")


def _one_of(pair: tuple[str, str], answer: str) -> str | None:
    """Which of two opposite words an answer settles on; the last one if it begins otherwise."""
    plain = " ".join(words(answer))
    marked = re.findall(rf"\b{_MARKED}((?:not )?(?:{'|'.join(pair)}))\b", plain)
    found = marked[-1:] or re.findall(rf"\b(?:not )?(?:{'|'.join(pair)})\b", plain)
    values = {_settled(pair, one) for one in found}
    return values.pop() if len(values) == 1 else None


def _settled(pair: tuple[str, str], found: str) -> str:
    positive, negative = pair
    if found.startswith("not "):
        return negative if found.endswith(positive) and not found.endswith(negative) else positive
    return found


def prompt_of(question: Question) -> str:
    """What a language model is asked: the question's prompt, its choices named.

    The benchmark's own words stay as they are; where they do not name every choice, one line that
    asks for a verdict follows. A question without prompt gets a plain one.
    """
    prompt = question.prompt or (
        f"Task: {question.task}\nReference answer: {question.reference}\n"
        f"Answer to judge: {question.answer}\nDoes the answer agree with the reference?"
    )
    if all(re.search(rf"(?<!\w){re.escape(c)}(?!\w)", prompt) for c in question.choices):
        return prompt
    return f"{prompt}\n\n{_reminder(question)}"


def _reminder(question: Question) -> str:
    listed = ", ".join(question.choices)
    return f"End with one line 'Verdict: X', where X is exactly one of: {listed}."


def _judge(generate: Callable[[str], str], question: Question) -> Verdict:
    """Asks, once more with the choices named if the first reply settles on none."""
    prompt = prompt_of(question)
    reply = generate(prompt)
    choice = choice_in(reply, question.choices)
    if choice is None:
        reply = generate(f"{prompt}\n\n{_reminder(question)}")
        choice = choice_in(reply, question.choices)
    if choice is None:
        return _cannot_tell(question, f"no choice in the reply {reply.strip()!r}")
    return Verdict(choice, reply.strip())


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """A language model in this process as judge.

    Attributes:
        generate: from a prompt to the model's reply, greedily.
        model: its name, for the report.
    """

    generate: Callable[[str], str]
    model: str

    @property
    def name(self) -> str:
        """As the report names it."""
        return f"{self.model} (local)"

    def verdict(self, question: Question) -> Verdict:
        """The model's choice."""
        return _judge(self.generate, question)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server that speaks the OpenAI chat protocol as judge.

    Attributes:
        url: up to and with ``/v1``; ``/chat/completions`` is appended.
        model: which of the server's models.
        key: sent as bearer token where not empty; never kept.
        cache: folder of replies, so that the same question costs once; None: nothing is kept.
        timeout: seconds to wait for a reply.
        retries: further tries after no reply, status 429 or 5xx.
        pause: seconds before the first further try; doubled before each next one.
        most_tokens: length of a reply.
    """

    url: str
    model: str
    key: str = dataclasses.field(default="", repr=False)
    cache: pathlib.Path | None = None
    timeout: float = 60.0
    retries: int = 4
    pause: float = 1.0
    most_tokens: int = 512

    def __post_init__(self):
        if urllib.parse.urlparse(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url={self.url!r} must begin with http:// or https://")
        for name, least in (("timeout", 1e-9), ("retries", 0), ("pause", 0), ("most_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least:g}")

    @property
    def name(self) -> str:
        """As the report names it."""
        return f"{self.model} at {urllib.parse.urlparse(self.url).hostname}"

    def verdict(self, question: Question) -> Verdict:
        """The model's choice.

        Raises:
            ConnectionError: no usable reply after all tries.
        """
        return _judge(self._reply, question)

    def _reply(self, prompt: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.most_tokens,
        }
        file = None
        if self.cache is not None:
            identity = json.dumps([self.url, body], sort_keys=True)
            file = self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
            if file.exists():
                return json.loads(file.read_text())["reply"]
        reply = self._ask(body)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as written:
                json.dump({"reply": reply}, written)
            os.replace(written.name, file)
        return reply

    def _ask(self, body: dict[str, Any]) -> str:
        problem = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                return self._post(body)
            except urllib.error.HTTPError as error:
                with error:
                    problem = f"status {error.code}: {error.read(500).decode(errors='replace')}"
                if error.code == 400 and "temperature" in problem and "temperature" in body:
                    body = {k: v for k, v in body.items() if k != "temperature"}
                elif error.code != 429 and error.code < 500:
                    break
            except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise ConnectionError(f"judge {self.name} gave no reply: {problem}")

    def _post(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            message = json.load(answer)["choices"][0]["message"]
        if not message.get("content"):
            raise ValueError("the reply has no content")
        return message["content"]
