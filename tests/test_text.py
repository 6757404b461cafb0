"""Tokenizers, decoding piece by piece, and what the output ids mean per channel."""

import itertools

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from interaction.streams.text import ByteTokenizer, ChannelReader, FileTokenizer, read_tokenizer
from interaction.types import CHANNELS, Control

BYTES = ByteTokenizer()


def train(path, kind):
    """A small `tokenizer.json`: byte-level, or words with spaces before them."""
    backend = tokenizers.Tokenizer(models.BPE())
    alphabet = []
    if kind == "byte_level":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        alphabet = list("abcdefghijklmnopqrstuvwxyz▁")
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    backend.train_from_iterator(["the cat sat on the mat", "a cat and a hat"] * 5, trainer)
    backend.save(str(path))
    return path


@pytest.fixture(params=["bytes", "byte_level", "words"])
def tokenizer(request, tmp_path):
    if request.param == "bytes":
        return read_tokenizer("bytes")
    return read_tokenizer(str(train(tmp_path / "tokenizer.json", request.param)))


def test_text_comes_back(tokenizer):
    text = "the cat and the hat"
    ids = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.size for token in ids)
    assert tokenizer.decode(ids) == text
    with_controls = [tokenizer.control(Control.SAY), *ids, tokenizer.control(Control.END)]
    assert tokenizer.decode(with_controls) == text


def test_pieces_join_to_the_whole(tokenizer):
    ids = tokenizer.encode("the cat sat on a hat")
    decoder = tokenizer.decoder()
    assert "".join(decoder.push([token]) for token in ids) + decoder.flush() == tokenizer.decode(
        ids
    )
    # The decoder is new after its flush.
    assert decoder.push(tokenizer.encode("cat")) + decoder.flush() == "cat"


def test_control_ids_lie_above_the_ordinary_ones(tokenizer):
    ids = [tokenizer.control(control) for control in Control]
    assert ids == list(range(tokenizer.size, tokenizer.size + 14))
    assert all(tokenizer.is_control(token) for token in ids)
    assert not tokenizer.is_control(tokenizer.size - 1)
    assert not tokenizer.is_control(tokenizer.size + 14)
    assert tokenizer.name(tokenizer.control(Control.SPEAK)) == "<SPEAK>"
    with pytest.raises(ValueError, match=f"token {tokenizer.size + 14} is neither"):
        tokenizer.decode([tokenizer.size + 14])


def test_names():
    assert [BYTES.name(token) for token in (65, 10, 200)] == ["A", "0x0A", "0xC8"]


def test_byte_level_file_splits_characters(tmp_path):
    tokenizer = FileTokenizer(train(tmp_path / "t.json", "byte_level"))
    ids = tokenizer.encode("né€")
    assert len(ids) == 6
    decoder = tokenizer.decoder()
    assert [decoder.push([token]) for token in ids] == ["n", "", "é", "", "", "€"]


def test_size_may_be_larger_than_the_file(tmp_path):
    path = train(tmp_path / "t.json", "words")
    own = FileTokenizer(path).size
    assert FileTokenizer(path, own + 7).control(Control.END) == own + 8
    with pytest.raises(ValueError, match=f"size={own - 1}.*{own - 1}"):
        FileTokenizer(path, own - 1)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        FileTokenizer(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match=r"bad.json is not a tokenizer.json"):
        FileTokenizer(tmp_path / "bad.json")


@settings(deadline=None)
@given(text=st.text(), cuts=st.lists(st.integers(0, 40)))
def test_bytes_split_anywhere(text, cuts):
    text = text.encode("utf-8", errors="replace").decode()
    ids, decoder = BYTES.encode(text), BYTES.decoder()
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    pieces = [decoder.push(ids[a:b]) for a, b in itertools.pairwise(edges)]
    assert "".join(pieces) == text
    assert decoder.flush() == ""


def test_broken_bytes_are_replaced_never_raised():
    decoder = BYTES.decoder()
    assert decoder.push([0xE2, 0x82]) == ""
    assert decoder.push([65]) == "�A"
    assert decoder.push([0xE2]) == ""
    assert decoder.flush() == "�"
    assert BYTES.decode([0xFF, 66]) == "�B"
    assert BYTES.encode("\ud800") == [ord("?")]


# ---------------------------------------------------------------- channels


def ids(*parts):
    """Output ids of controls and texts (or raw bytes)."""
    result = []
    for part in parts:
        if isinstance(part, Control):
            result.append(BYTES.control(part))
        else:
            result += list(part) if isinstance(part, bytes) else BYTES.encode(part)
    return result


PASS, END, SPEAK, YIELD, BEGIN = (Control(i) for i in range(5))
SAY, WRITE, DELEGATE = CHANNELS
DONE = Control.DONE


def told(read):
    return [(piece.channel, piece.text, piece.opens, piece.ends) for piece in read.pieces]


def test_channels_of_one_micro_turn():
    read = ChannelReader(BYTES).push(7, ids(BEGIN, WRITE, "7", SAY, "se", SPEAK))
    assert told(read) == [(WRITE, "7", True, False), (SAY, "se", True, False)]
    assert read.closer is SPEAK
    assert {piece.micro_turn for piece in read.pieces} == {7}


@pytest.mark.parametrize("closer", [PASS, END, SPEAK, YIELD])
def test_only_delegate_outlives_the_closer(closer):
    for channel in CHANNELS:
        reader = ChannelReader(BYTES)
        reader.push(0, ids(channel, "ab", closer))
        assert reader.open is (DELEGATE if channel is DELEGATE else None)
        read = reader.push(1, ids("cd", closer))
        if channel is DELEGATE:
            assert told(read) == [(DELEGATE, "cd", False, False)]
            assert read.stray == ()
        else:
            assert told(read) == []
            assert read.stray == (99, 100)


@pytest.mark.parametrize(
    ("after", "pieces"),
    [
        (("b", DONE, "c"), [(DELEGATE, "b", False, True)]),
        ((DONE,), [(DELEGATE, "", False, True)]),
        (("b", SAY, "c"), [(DELEGATE, "b", False, True), (SAY, "c", True, False)]),
        ((DELEGATE, "c"), [(DELEGATE, "", False, True), (DELEGATE, "c", True, False)]),
    ],
)
def test_a_request_ends_once(after, pieces):
    reader = ChannelReader(BYTES)
    reader.push(0, ids(DELEGATE, "a", END))
    assert told(reader.push(1, ids(PASS))) == []
    read = reader.push(2, ids(*after, END))
    assert told(read) == pieces
    assert read.stray == ((99,) if DONE in after and "c" in after else ())


def test_a_character_may_be_split_across_micro_turns():
    reader, euro = ChannelReader(BYTES), "€".encode()
    assert told(reader.push(0, ids(WRITE, b"1" + euro[:1], END))) == [(WRITE, "1", True, False)]
    # Another channel in between has its own decoder.
    assert told(reader.push(1, ids(SAY, "x", SPEAK))) == [(SAY, "x", True, False)]
    assert told(reader.push(2, ids(WRITE, euro[1:], END))) == [(WRITE, "€", True, False)]
    reader.push(3, ids(WRITE, euro[:2], END))
    assert reader.flush() == {SAY: "", WRITE: "�", DELEGATE: ""}


def test_what_follows_the_closer_is_not_read():
    read = ChannelReader(BYTES).push(0, [*ids(WRITE, "a", END), -1, -1])
    assert told(read) == [(WRITE, "a", True, False)]
    open_ended = ChannelReader(BYTES).push(0, [*ids(WRITE, "a"), -1, 66])
    assert told(open_ended) == [(WRITE, "a", True, False)]
    assert open_ended.closer is None
