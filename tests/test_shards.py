"""Shards: a session comes back as it went in, a killed build goes on, and the order is one order.

In: made-up micro-turns and a plan of them. Out: records equal bit for bit, sets equal byte for byte
after a kill, batches that depend on the step alone.
"""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

from interaction.data import pipeline
from interaction.data.shards import read, write
from interaction.data.shards.read import ShardsConfig, ShardSource, shuffled
from interaction.data.shards.record import decode, encode, origin
from interaction.data.shards.rows import RowSizes, cut, used
from interaction.data.shards.write import Made, Part
from interaction.streams.layout import WeaveConfig
from interaction.streams.weave import weave
from interaction.types import AudioChunk, Control, MicroTurn, TextIn

ROWS = RowSizes(slots=90, audio=24, patches=9, speech=6, chunks=3, max_text_out=7)
CONFIG = WeaveConfig()
PASS, SAY, SPEAK, YIELD, END = (
    CONFIG.control(c)
    for c in (Control.PASS, Control.SAY, Control.SPEAK, Control.YIELD, Control.END)
)


def turn(seed: int, now: int) -> MicroTurn:
    """A random micro-turn: any stream may be missing."""
    rng = np.random.default_rng([seed, now])
    speaks = rng.random() < 0.3
    text = (SAY, *rng.integers(0, 256, int(rng.integers(1, 4))).tolist())
    video = rng.integers(0, 256, (int(rng.integers(1, 5)), 2, 40, 40, 3)).astype(np.uint8)
    return MicroTurn(
        now,
        video=video if rng.random() < 0.3 else None,
        text_in=(TextIn(Control.USER, (65, 66)), TextIn(Control.TOOL, ()))[: rng.integers(0, 3)],
        audio=tuple(
            AudioChunk(rng.integers(0, 16, (4, 80)).astype(np.uint8), late)
            for late in range(int(rng.integers(0, 3)))
        ),
        text_out=None if rng.random() < 0.1 and not speaks else (*text, SPEAK if speaks else END),
        speech=rng.normal(size=(16, 80)).astype(np.float32) if speaks else None,
        text_weight=float(rng.random()),
        speech_weight=0.25,
    )


def session(seed: int, length: int = 6) -> list[MicroTurn]:
    return [turn(seed, 7 * seed + now) for now in range(length)]


def assert_same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def fields(turns) -> list:
    return [dataclasses.asdict(t) for t in turns]


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("turns", [session(1), session(2, 40), [MicroTurn(5)], []])
def test_a_record_gives_back_its_session_and_is_always_the_same(turns):
    record = encode(turns, "call 7")
    assert_same(fields(decode(record)), fields(turns))
    assert encode(decode(record), "call 7") == record
    assert origin(record) == "call 7"
    if len(turns) > 1:
        assert encode(turns[1:], "call 7") != record


# ---------------------------------------------------------------- cutting


def test_pieces_fit_fill_and_leave_nothing_out():
    turns = session(3, 120)
    pieces = cut(turns, ROWS)
    assert [t.micro_turn for p in pieces for t in p] == [t.micro_turn for t in turns]
    room = [ROWS.slots, ROWS.audio, ROWS.patches, ROWS.speech, ROWS.chunks]
    for piece, after in zip(pieces, [*pieces[1:], None], strict=True):
        woven = weave(piece, CONFIG)
        tables = (woven.slots.stream, woven.payloads.audio, woven.payloads.patches,
                  woven.payloads.speech, woven.targets.chunk)  # fmt: skip
        lengths = [len(table) for table in tables]
        assert lengths == used(piece, ROWS).sum(axis=0).tolist()
        assert all(length <= most for length, most in zip(lengths, room, strict=True))
        if after is not None:  # a longer piece would not fit, or would end in less of a pause
            whole = used([*piece, after[0]], ROWS).sum(axis=0)
            assert (whole > room).any() or piece[-1].speech is None


def talk(closers: str) -> list[MicroTurn]:
    """Micro-turns that pass (.), speak (s) or yield (y), hearing one chunk each."""
    ids = {".": (PASS,), "s": (SPEAK,), "y": (YIELD,)}
    chunk, mel = AudioChunk(np.zeros((4, 80), np.uint8)), np.zeros((16, 80), np.float32)
    return [
        MicroTurn(now, audio=(chunk,), text_out=ids[c], speech=mel if c == "s" else None)
        for now, c in enumerate(closers)
    ]


@pytest.mark.parametrize(
    ("closers", "expected", "unlearnt"),
    [
        ("........", ["......", ".."], []),
        ("....sy..", ["....sy", ".."], []),  # six fit; the last quarter begins behind the fifth
        (".....sy.", [".....", "sy."], []),
        ("....ssy.", ["....ss", "y."], [6]),
        ("...sssss", ["...sss", "ss"], [6, 7]),
    ],
)
def test_a_cut_looks_for_a_pause_and_speech_that_goes_on_is_no_decision(
    closers, expected, unlearnt
):
    sizes = RowSizes(slots=60, audio=24)
    turns = talk(closers)
    pieces = cut(turns, sizes)
    lengths = [len(piece) for piece in expected]
    assert [len(piece) for piece in pieces] == lengths
    flat = [t for piece in pieces for t in piece]
    assert [t.micro_turn for t in flat if t.text_weight == 0] == unlearnt


def test_sizes_say_what_does_not_fit():
    with pytest.raises(
        ValueError, match=r"micro-turn 0 needs .*'patches': 3.* room .*'patches': 2"
    ):
        cut([MicroTurn(0, video=np.zeros((3, 2, 40, 40, 3), np.uint8))], RowSizes(patches=2))
    with pytest.raises(ValueError, match="slots=20 must hold"):
        RowSizes(slots=20)
    with pytest.raises(ValueError, match="speech_slots=2 and speech_slots=4"):
        RowSizes().together(RowSizes(speech_slots=4))
    assert RowSizes(slots=700).together(RowSizes(audio=400)) == RowSizes(slots=700, audio=400)


# ---------------------------------------------------------------- writing


@dataclasses.dataclass(frozen=True)
class MadeUp:
    """Thirteen inputs of one or two sessions; one input is broken; may be killed at one."""

    seed: int = 0
    killed_at: int = -1
    inputs: int = 13
    inputs_per_shard: int = 4
    sizes: RowSizes = RowSizes(slots=400, audio=60, patches=60, speech=24, chunks=12)

    def identity(self) -> dict:
        return {"of": "made up", "seed": self.seed}

    def name(self, index: int) -> str:
        return f"input {index}"

    def sessions(self, index: int):
        if index == self.killed_at:
            raise KeyboardInterrupt
        if index == 6:
            raise ValueError("broken")
        for number in range(1 + index % 2):
            yield Made(session(20 * self.seed + 2 * index + number), f"{index}/{number}")


class OnlyBroken(MadeUp):
    """None of its inputs can be used."""

    def sessions(self, index: int):
        raise OSError(f"number {index} is broken")


def contents(folder) -> dict[str, str]:
    files = [p for p in folder.iterdir() if not p.name.endswith(".partial")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    manifest = write.write(MadeUp(), folder)
    assert manifest is not None
    return folder, manifest


def test_what_a_set_holds(whole):
    folder, manifest = whole
    assert manifest == write.read_manifest(folder)
    assert (manifest.shards, len(manifest.files), manifest.sessions) == (4, 4, 18)
    assert [(f.input, f.error) for f in manifest.failures] == [("input 6", "broken")]
    lengths = [len(ShardSource(config(folder))[i].slots.stream) for i in range(18)]
    assert manifest.slots == sum(lengths)
    assert manifest.filled == pytest.approx(np.mean(lengths) / 400)


@pytest.mark.parametrize("killed_at", [0, 5, 12])
def test_a_killed_build_goes_on_to_the_same_bytes(whole, tmp_path, killed_at):
    told = []
    with pytest.raises(KeyboardInterrupt):
        write.write(MadeUp(killed_at=killed_at), tmp_path)
    with pytest.raises(FileNotFoundError, match="run the same command again"):
        write.read_manifest(tmp_path)
    done = sorted(p.name for p in tmp_path.glob("*.array_record"))
    assert len(done) == killed_at // 4
    written = {name: (tmp_path / name).stat().st_mtime_ns for name in done}
    write.write(MadeUp(), tmp_path, advance=lambda inputs, sessions: told.append(inputs))
    assert contents(tmp_path) == contents(whole[0])
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in done} == written
    assert sum(told) == 13
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_processes_side_by_side_make_the_same_bytes(whole, tmp_path):
    told = []
    write.write(MadeUp(), tmp_path, processes=2, advance=lambda *done: told.append(done))
    assert contents(tmp_path) == contents(whole[0])
    assert [sum(part) for part in zip(*told, strict=True)] == [13, 18]


def test_half_a_shard_never_counts(whole, tmp_path):
    write.write(MadeUp(), tmp_path)
    shard = sorted(tmp_path.glob("*.array_record"))[2]
    shard.write_bytes(shard.read_bytes()[:-7])
    write.write(MadeUp(), tmp_path)
    assert contents(tmp_path) == contents(whole[0])


def test_parts_make_one_set(whole, tmp_path):
    assert write.write(MadeUp(), tmp_path, part=Part(1, 3)) is None
    assert len(list(tmp_path.glob("*.array_record"))) == 1
    assert write.write(MadeUp(), tmp_path, part=Part(2, 3)) is None
    assert write.write(MadeUp(), tmp_path, part=Part(0, 3)) == whole[1]
    assert contents(tmp_path) == contents(whole[0])
    with pytest.raises(ValueError, match="part 3 of 3"):
        Part(3, 3)


def test_another_plan_does_not_go_into_the_folder(whole):
    with pytest.raises(ValueError, match=r"begun with other seed .seed was 0, is 1"):
        write.write(MadeUp(seed=1), whole[0])


def test_nothing_usable_and_other_forms_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"4 inputs gave no session.*number 0 is broken"):
        write.write(OnlyBroken(inputs=4), tmp_path / "broken")
    with pytest.raises(FileNotFoundError, match="no shards"):
        write.read_manifest(tmp_path)
    (tmp_path / write.MANIFEST).write_text(json.dumps({"form": 99}))
    with pytest.raises(ValueError, match="form=99, this release reads form=1"):
        write.read_manifest(tmp_path)


# ---------------------------------------------------------------- reading


def config(*folders, **values) -> ShardsConfig:
    return ShardsConfig(tuple(str(folder) for folder in folders), **values)


def test_every_session_comes_once_an_epoch_in_an_order_of_its_own(whole):
    def starts(order, first):
        return [int(order[i].slots.micro_turn[0]) for i in range(first, first + 18)]

    order = shuffled(config(whole[0]))
    epochs = [starts(order, 0), starts(order, 18)]
    source = ShardSource(config(whole[0]))
    straight = [int(source[i].slots.micro_turn[0]) for i in range(18)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(straight)
    assert epochs[0] != epochs[1] and epochs[0] != straight
    assert starts(shuffled(config(whole[0])), 0) == epochs[0]
    assert starts(shuffled(config(whole[0], seed=1)), 0) != epochs[0]


def rows(batch, part: slice):
    return jax.tree.map(lambda leaf: leaf[part], batch)


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_processes_read_the_rows_of_one_batch_between_them(whole, processes):
    def open_(mine=slice(None)):
        return pipeline.batches(None, size=6, workers=0, shards=config(whole[0]), rows=mine)

    one = open_()
    wanted = [next(one) for _ in range(4)]
    share = 6 // processes
    for process in range(processes):
        mine = slice(process * share, (process + 1) * share)
        stream = open_(mine)
        for step in range(2):
            assert_same(next(stream), rows(wanted[step], mine))
        # Resumed by another number of processes: the state says the place alone.
        again = open_()
        again.set_state(stream.get_state())
        assert_same(next(again), wanted[2])
    with pytest.raises(ValueError, match=r"rows=slice\(6, 8, None\) of a batch of 6 are none"):
        open_(slice(6, 8))


def test_a_state_of_something_else_is_refused(whole):
    stream = pipeline.batches(None, size=2, workers=0, shards=config(whole[0]))
    with pytest.raises(ValueError, match="does not say the next record"):
        stream.set_state({"iterations": 4})
    with pytest.raises(ValueError, match="nothing to read"):
        pipeline.batches(None, size=2)


def test_shards_beside_another_source_take_their_share_of_the_places():
    class Numbers:
        def __getitem__(self, place):
            return place

    class Letters:
        def __getitem__(self, place):
            return "abcdefghijklmnop"[place]

    mixed = pipeline.Beside(Numbers(), Letters(), 0.3)
    got = [mixed[i] for i in range(20)]
    assert [g for g in got if isinstance(g, str)] == list("abcdef")
    assert [g for g in got if not isinstance(g, str)] == list(range(14))
    assert [isinstance(g, str) for g in got[:10]].count(True) == 3
    assert [pipeline.Beside(Numbers(), Letters(), 1.0)[i] for i in range(3)] == list("abc")


@pytest.mark.slow
def test_the_number_of_workers_changes_no_batch(whole):
    streams = [
        pipeline.batches(None, size=4, workers=workers, shards=config(whole[0]))
        for workers in (0, 1, 3)
    ]
    for _ in range(5):
        first, *others = [next(stream) for stream in streams]
        for other in others:
            assert_same(other, first)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folders": ()}, "names no set"),
        ({"folders": ("a",), "share": 0.0}, r"share=0\.0"),
        ({"folders": ("/nowhere",)}, "no shards"),
    ],
)
def test_bad_configurations_are_named(values, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _ = read.ShardsConfig(**values).sizes
