"""Text made comparable, numbers in words, word errors, spans of time: cases made by hand."""

import math
import random

import pytest

from interaction.eval.normalise import normalise
from interaction.eval.number_words import digits, numbers_in, spell
from interaction.eval.spans import covered, iou, length, merge, overlaps, shared
from interaction.eval.word_errors import WordErrors, corpus_rate, word_errors

TEXTS = (
    ("Hello, World!", "hello world"),
    ("It's TWENTY-ONE o'clock.", "it is 21 oclock"),
    ("I can't, won't and don't.", "i can not will not and do not"),
    ("They've said you're here; I'd think she'll come.",
     "they have said you are here i would think she will come"),
    ("I shouldn't've", "i should not have"),
    ("John's dog, that's it", "johns dog that is it"),
    ("um, well uh I mean hmm yes", "well i mean yes"),
    ("uh-huh", "uhhuh"),
    ("[noise] three (laughs) cats <unk>", "3 cats"),
    ("It costs $5 or five dollars", "it costs 5 dollars or 5 dollars"),
    ("£2.50 & 10%", "2.50 pounds and 10 percent"),
    ("$3 million", "3000000 dollars"),
    ("1,234 and one thousand two hundred thirty-four", "1234 and 1234"),
    ("Café naïve", "cafe naive"),
    ("the twenty-first and the 3rd, third", "the 21st and the 3rd 3rd"),
    ("OK, Mr. Smith", "okay mister smith"),
    ("don’t", "do not"),
    ("", ""),
    ("...!?", ""),
    ("snake_case", "snake case"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_text_is_made_comparable(text, expected):
    assert normalise(text) == expected
    assert normalise(expected) == expected


NUMBERS = (
    ("one two three", [1, 2, 3]),
    ("nineteen twenty twenty one", [19, 20, 21]),
    ("twenty, one", [20, 1]),
    ("twenty-one", [21]),
    ("one hundred and five", [105]),
    ("one hundred five", [105]),
    ("one hundred one hundred one one hundred two", [100, 101, 102]),
    ("one hundred and twenty one hundred and twenty one", [120, 121]),
    ("ninety nine one hundred", [99, 100]),
    ("two and three", [2, 3]),
    ("a hundred", [100]),
    ("a dog", []),
    ("nine hundred ninety nine", [999]),
    ("two thousand and five", [2005]),
    ("two thousand, three hundred and four", [2304]),
    ("two hundred, three", [200, 3]),
    ("two thousand, three thousand", [2000, 3000]),
    ("two thousand and three thousand", [2000, 3000]),
    ("one thousand, then", [1000]),
    ("three hundred thousand twelve", [300_012]),
    ("2 hundred", [200]),
    ("three point one four", [3.14]),
    ("the point five", [5]),
    ("negative four", [-4]),
    ("-4 and 3-5", [-4, 3, 5]),
    ("wait a second", []),
    ("a twenty second timer", [20]),
    ("the first, the 2nd, the twenty third", []),
    ("someone weighs ten-fold", [10]),
    ("zero", [0]),
    ("zero five", [0, 5]),
    ("1,000", [1000]),
    ("1, 000", [1, 0]),
    ("7.", [7]),
    ("fourty two", [42]),
    ("R2D2 has 3 legs", [3]),
)


@pytest.mark.parametrize(("text", "expected"), NUMBERS)
def test_numbers_are_found_in_order(text, expected):
    assert numbers_in(text) == expected


def test_every_number_below_a_thousand_comes_back_from_words():
    for number in range(1000):
        assert numbers_in(spell(number)) == [number], spell(number)
        assert digits(spell(number)) == str(number)
        if number > 100 and number % 100:
            british = spell(number).replace("hundred ", "hundred and ")
            assert numbers_in(british) == [number], british


def test_counting_aloud_keeps_every_number_apart():
    # A parser that joins neighbours ("nineteen twenty" as a year) fails here.
    aloud = " ".join(spell(number) for number in range(1000))
    assert numbers_in(aloud) == list(range(1000))


@pytest.mark.parametrize("number", [-1, 1000])
def test_only_numbers_that_have_words_are_spelt(number):
    with pytest.raises(ValueError, match=str(number)):
        spell(number)


ERRORS = (
    ("a b c", "a b c", (3, 0, 0, 0)),
    ("a b c", "a x c", (2, 1, 0, 0)),
    ("a b c", "a c", (2, 0, 1, 0)),
    ("a b c", "a b b c", (3, 0, 0, 1)),
    ("a b c", "", (0, 0, 3, 0)),
    ("", "a b", (0, 0, 0, 2)),
    ("", "", (0, 0, 0, 0)),
    ("one cat", "1 cat", (2, 0, 0, 0)),
)


@pytest.mark.parametrize(("right", "heard", "expected"), ERRORS)
def test_word_errors_by_hand(right, heard, expected):
    assert word_errors(right, heard) == WordErrors(*expected)


def test_words_given_as_words_are_not_normalised():
    assert word_errors(["One"], ["1"]).errors == 1
    assert word_errors("One", "1").errors == 0


def test_word_error_rates():
    assert word_errors("a b c d", "a b c").rate == pytest.approx(0.25)
    assert word_errors("", "").rate == 0
    assert word_errors("", "x").rate == math.inf
    assert word_errors("a", "x y z").rate == 3
    several = [word_errors("a b c", "a b c"), word_errors("a", "b")]
    assert corpus_rate(several) == pytest.approx(0.25)
    assert math.isnan(corpus_rate([]))


def test_the_edit_distance_is_symmetric_and_no_longer_than_the_longer_text():
    draw = random.Random(0)
    for _ in range(200):
        one = draw.choices("abc", k=draw.randrange(8))
        other = draw.choices("abc", k=draw.randrange(8))
        there, back = word_errors(one, other), word_errors(other, one)
        assert there.errors == back.errors <= max(len(one), len(other))
        assert there.reference == len(one) and back.reference == len(other)
        assert there.hits + there.substitutions + there.insertions == len(other)


SPANS = (
    ((0, 2), (1, 3), 1 / 3),
    ((0, 2), (0, 2), 1),
    ((0, 1), (1, 2), 0),
    ((0, 1), (5, 6), 0),
    ((0, 10), (4, 5), 0.1),
    ((3, 3), (3, 3), 0),
    ((1, 1), (0, 2), 0),
)


@pytest.mark.parametrize(("one", "other", "expected"), SPANS)
def test_intersection_over_union(one, other, expected):
    assert iou(one, other) == pytest.approx(expected)
    assert iou(other, one) == pytest.approx(expected)
    hull = max(one[1], other[1]) - min(one[0], other[0])
    assert (shared(one, other) / hull if hull else 0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0, [(0, 1), (1.5, 3), (4, 5)]), (0.5, [(0, 3), (4, 5)]), (0.49, [(0, 1), (1.5, 3), (4, 5)]),
     (1, [(0, 5)])],
)  # fmt: skip
def test_spans_with_small_gaps_become_one(gap, expected):
    assert merge([(4, 5), (0, 1), (2, 3), (1.5, 2.5)], gap=gap) == expected


def test_overlaps_and_cover():
    assert overlaps([(0, 2), (3, 5)], [(1, 4)]) == [(1, 2), (3, 4)]
    assert overlaps([(0, 1)], [(1, 2)]) == []
    assert covered([(0, 2), (1, 3), (5, 6)]) == 4
    assert length((1, 1)) == 0


def test_a_span_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match=r"start=2.*end=1"):
        iou((2, 1), (0, 1))
    with pytest.raises(ValueError, match="gap=-1"):
        merge([], gap=-1)
