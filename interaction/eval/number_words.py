"""Numbers in words and digits.

In: English text. Out: `digits` (the same text with its number words as digits), `numbers_in`
(their values in order) and, the other way, `spell`. Counted numbers stay apart: "nineteen twenty
twenty one" is 19, 20, 21, so a year said in two halves is two numbers.
"""

import dataclasses
import re

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_SMALL = {word: value for value, word in enumerate(ONES)} | {"fourty": 40}
_TENS = {word: 10 * (value + 2) for value, word in enumerate(TENS)} | {"fourty": 40}
# "second" is left out: "a second" and "a twenty second timer" speak of time.
_ORDINALS = {
    "first": 1, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14,
    "fifteenth": 15, "sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19,
    "twentieth": 20, "thirtieth": 30, "fortieth": 40, "fiftieth": 50, "sixtieth": 60,
    "seventieth": 70, "eightieth": 80, "ninetieth": 90, "hundredth": 100, "thousandth": 1_000,
}  # fmt: skip
_TOKEN = re.compile(
    r"(?<![\w.])-?\d+(?:\.\d+)?(?:st|nd|rd|th)?(?![^\W_])"  # 7, -7, 7.5, 7th
    r"|[^\W_]+(?:'[^\W_]+)*"  # a word
    r"|[^\w\s]|_"  # a mark
)
_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_VALUE = re.compile(r"-?\d+(?:\.\d+)?")


@dataclasses.dataclass(frozen=True)
class _Found:
    """A number of words ``[start, end)`` of a list."""

    value: int
    end: int
    ordinal: bool = False


def spell(number: int) -> str:
    """`number` in words without "and": 121 is "one hundred twenty one".

    Raises:
        ValueError: not in 0..999.
    """
    if not 0 <= number <= 999:
        raise ValueError(f"number={number} must lie in 0..999")
    if number < 20:
        return ONES[number]
    if number < 100:
        rest = f" {ONES[number % 10]}" if number % 10 else ""
        return TENS[number // 10 - 2] + rest
    rest = f" {spell(number % 100)}" if number % 100 else ""
    return f"{ONES[number // 100]} hundred{rest}"


def digits(text: str) -> str:
    """The text in lower case with every number word as digits, words parted by one space.

    Ordinals become "21st"; "three point five" 3.5; "negative four" -4; a comma between thousands
    goes; marks stay as tokens of their own, since they part numbers.
    """
    tokens = _TOKEN.findall(_COMMA.sub("", text.lower()))
    result, at = [], 0
    while at < len(tokens):
        negative = tokens[at] == "negative"
        found = _number(tokens, at + negative)
        if found is None:
            result.append(tokens[at])
            at += 1
            continue
        sign = "-" if negative else ""
        decimals, end = _decimals(tokens, found)
        result.append(f"{sign}{found.value}{decimals}{_suffix(found)}")
        at = end
    return " ".join(result)


def numbers_in(text: str) -> list[int | float]:
    """The values of every number, in words or digits, in order; ordinals are none."""
    words = digits(text).split()
    values = [word for word in words if _VALUE.fullmatch(word)]
    return [float(value) if "." in value else int(value) for value in values]


def _suffix(found: _Found) -> str:
    if not found.ordinal:
        return ""
    last = 0 if found.value % 100 in (11, 12, 13) else found.value % 10
    return {1: "st", 2: "nd", 3: "rd"}.get(last, "th")


def _decimals(tokens: list[str], found: _Found) -> tuple[str, int]:
    """``.5`` of "point five" behind a number, and where that ends."""
    at = found.end
    if found.ordinal or at >= len(tokens) or tokens[at] != "point":
        return "", at
    end, after = at + 1, ""
    while end < len(tokens) and _SMALL.get(tokens[end], 10) < 10:
        after += str(_SMALL[tokens[end]])
        end += 1
    return (f".{after}", end) if after else ("", at)


def _word(tokens: list[str], at: int) -> str:
    return tokens[at] if at < len(tokens) else ""


def _below_hundred(tokens: list[str], at: int, *, behind: str = "") -> _Found | None:
    """A number below 100 that begins at a token, behind that word.

    Behind "hundred" a unit that begins the next hundred stays there: "one hundred twenty one
    hundred twenty one", said while counting.
    """
    if _word(tokens, at) == "-" and at:  # twenty-one, one-hundred
        at += 1
    word = _word(tokens, at)
    if word in _TENS:
        skip = at + 2 if _word(tokens, at + 1) == "-" else at + 1
        unit = _word(tokens, skip)
        if behind == "hundred" and _word(tokens, skip + 1) == "hundred":
            return _Found(_TENS[word], at + 1)
        if 1 <= _SMALL.get(unit, 0) <= 9:
            return _Found(_TENS[word] + _SMALL[unit], skip + 1)
        if 1 <= _ORDINALS.get(unit, 0) <= 9:
            return _Found(_TENS[word] + _ORDINALS[unit], skip + 1, True)
        return _Found(_TENS[word], at + 1)
    if word in _SMALL:
        return _Found(_SMALL[word], at + 1)
    if word in _ORDINALS:
        return _Found(_ORDINALS[word], at + 1, True)
    if word.isdecimal() and word.isascii() and _word(tokens, at + 1) in _SCALES:
        return _Found(int(word), at + 1)
    return None


def _below_thousand(tokens: list[str], at: int) -> _Found | None:
    if _word(tokens, at) in ("a", "an") and _word(tokens, at + 1) in _SCALES:
        at += 1
    first = _below_hundred(tokens, at)
    if first is None:
        if _word(tokens, at) not in _SCALES:
            return None
        first = _Found(1, at)  # "a hundred", "hundred"
    if first.ordinal or first.value == 0 or _word(tokens, first.end) != "hundred":
        ordinal = _word(tokens, first.end) == "hundredth" and 0 < first.value < 100
        return _Found(first.value * 100, first.end + 1, True) if ordinal else first
    hundreds, end = first.value * 100, first.end + 1
    for start in (end, end + 1) if _word(tokens, end) == "and" else (end,):
        rest = _below_hundred(tokens, start, behind="hundred")
        if rest and rest.value and _word(tokens, rest.end) not in ("hundred", "hundredth"):
            return _Found(hundreds + rest.value, rest.end, rest.ordinal)
    return _Found(hundreds, end)


def _number(tokens: list[str], at: int) -> _Found | None:
    """The number that begins at a token, None if none does."""
    if _word(tokens, at) == "-":
        return None
    total, limit, end, found = 0, 10**12, at, None
    while True:
        part = _below_thousand(tokens, end)
        if part is None:
            break
        scale = _SCALES.get(_word(tokens, part.end), 1)
        bare = scale < 1_000 or part.ordinal
        if not (part.value * (1 if bare else scale) < limit and (part.value or found is None)):
            break
        if bare:
            return _Found(total + part.value, part.end, part.ordinal)
        total, limit, end = total + part.value * scale, scale, part.end + 1
        found = _Found(total, end)
        # "one thousand, two hundred", "one thousand and five"; a comma parts smaller numbers.
        if _word(tokens, end) in ("and", ",") and _below_thousand(tokens, end + 1):
            end += 1
    return found
