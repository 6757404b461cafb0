"""Files with the times of words: JSON, RTTM and Praat's TextGrid.

In: a file that lies beside a recording. Out: `Talk` of the user and of the model. Which is which is
told by the speaker's name: one of `USER` and `MODEL`, in any case.

JSON: a list of ``{"text" or "word", "start", "end", "speaker" or "channel"}``, or a mapping with
such a list under "words", "segments" or "utterances" (a segment may hold "words" of its own), or
under "alignments" a list of ``[text, [start, end], speaker]`` as Moshi's fine-tuning code writes it
(github.com/kyutai-labs/moshi-finetune; its SPEAKER_MAIN is the model). A text of several words is
an utterance, whose words are found by alignment.
RTTM: NIST's Rich Transcription Time Marked lines (RT-09 evaluation plan, appendix A); LEXEME gives
words, SPEAKER stretches of speech.
TextGrid: interval tiers in the long or the short text format, named by speaker, or "speaker -
words" as the Montreal Forced Aligner does; tiers of phones are passed over.
"""

import collections
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from interaction.data.build.words import Span, Talk, Word

USER = frozenset("user human caller customer left a 1 speaker_user".split())
MODEL = frozenset("model assistant agent system right b 2 speaker_main".split())
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![\w.\[])(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w\]])')
_PHONES = ("phone", "phones", "phoneme", "phonemes", "segments")

type Found = tuple[str, Word | Span]


def read_words(path: pathlib.Path) -> dict[str, Talk]:
    """What "user" and "model" say.

    Args:
        path: a file whose suffix is in `READERS`.

    Raises:
        ValueError: not in its format, or a speaker of neither side; names the file.
    """
    try:
        found = list(READERS[path.suffix.lower()](path))
        return {side: _talk(found, names) for side, names in (("user", USER), ("model", MODEL))}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _talk(found: list[Found], names: frozenset[str]) -> Talk:
    for speaker, _ in found:
        if speaker.lower() not in USER | MODEL:
            raise ValueError(
                f"speaker {speaker!r} is neither the user ({', '.join(sorted(USER))}) nor the "
                f"model ({', '.join(sorted(MODEL))})"
            )
    mine = [item for speaker, item in found if speaker.lower() in names]
    words = sorted((w for w in mine if isinstance(w, Word)), key=lambda w: (w.start, w.end))
    return Talk(tuple(words), tuple(sorted(s for s in mine if isinstance(s, tuple))))


# ---------------------------------------------------------------- JSON


def _json(path: pathlib.Path) -> Iterator[Found]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(values, Mapping):
        names = [n for n in ("words", "segments", "utterances", "alignments") if n in values]
        if not names:
            raise ValueError(f"its keys {sorted(values)} hold neither words nor segments")
        values = values[names[0]]
    for item in values:
        yield from _json_item(item, None)


def _json_item(item: Any, speaker: str | None) -> Iterator[Found]:
    if isinstance(item, list):
        text, (start, end), who = item
        yield str(who), Word(str(text).strip(), float(start), float(end))
        return
    who = item.get("speaker", item.get("channel", speaker))
    if item.get("words"):
        for word in item["words"]:
            yield from _json_item(word, who)
        return
    text = str(item["text"] if "text" in item else item["word"]).strip()
    if who is None:
        raise ValueError(f"{text!r} at {item['start']} s has no speaker (user or model)")
    if text:
        yield str(who), Word(text, float(item["start"]), float(item["end"]))


# ---------------------------------------------------------------- RTTM


def _rttm(path: pathlib.Path) -> Iterator[Found]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] not in ("SPEAKER", "LEXEME"):
            continue
        if len(fields) < 8:
            raise ValueError(f"line {number} has {len(fields)} fields, at least 8 are needed")
        start, length = float(fields[3]), float(fields[4])
        named = fields[7].lower() in USER | MODEL
        who = fields[7] if named or fields[2] not in ("1", "2") else fields[2]
        if fields[0] == "LEXEME":
            yield who, Word(fields[5], start, start + length)
        elif length <= 0 or start < 0:
            raise ValueError(f"line {number}: start {start}, length {length} are no span of time")
        else:
            yield who, (start, start + length)


# ---------------------------------------------------------------- TextGrid


def _textgrid(path: pathlib.Path) -> list[Found]:
    data = path.read_bytes()
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = data.decode("utf-16" if wide else "utf-8-sig")
    # Both formats hold the same strings and numbers in the same order; names of fields fall away.
    tokens = collections.deque(
        m[1].replace('""', '"') if m[2] is None else float(m[2]) for m in _TOKEN.finditer(text)
    )
    try:
        if [tokens.popleft(), tokens.popleft()] != ["ooTextFile", "TextGrid"]:
            raise ValueError("not a TextGrid in one of Praat's text formats")
        _, _, tiers = (tokens.popleft() for _ in range(3))
        return [found for _ in range(int(tiers)) for found in _tier(tokens)]
    except IndexError:
        raise ValueError("it ends in the middle") from None


def _tier(tokens: collections.deque[Any]) -> Iterator[Found]:
    kind, name, _, _, count = (tokens.popleft() for _ in range(5))
    if kind not in ("IntervalTier", "TextTier"):
        raise ValueError(f"tier {name!r} is of kind {kind!r}")
    who, _, layer = name.partition(" - ")
    for _ in range(int(count)):
        start = tokens.popleft()
        end = tokens.popleft() if kind == "IntervalTier" else start
        text = tokens.popleft().strip()
        if kind == "IntervalTier" and text and layer.lower() not in _PHONES:
            yield who.strip(), Word(text, start, end)


READERS: dict[str, Callable[[pathlib.Path], Iterable[Found]]] = {
    ".json": _json,
    ".rttm": _rttm,
    ".textgrid": _textgrid,
}
