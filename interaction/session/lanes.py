"""Lanes: B sessions stepped in lockstep by one compiled program.

In: a checkpoint's parameters and, every micro-turn, what arrives for each lane. Out: what each
lane puts out. Sessions join (`open`), leave (`close`), are copied (`snapshot`, `restore`, `fork`)
at any micro-turn; nothing of that compiles anything after `warm_up`. Everything of a session is
in its lane's part of `SessionState` and in the little that `Snapshot` lists beside it.
"""

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from interaction.models.config import InteractionConfig
from interaction.models.memory import Policy
from interaction.session.snapshot import Snapshot, fingerprint
from interaction.session.state import SessionState, init_state, put_lane, take_lane
from interaction.session.step import compile_step
from interaction.streams.text import ChannelReader, Tokenizer, read_tokenizer
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import Control, TextIn


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Static sizes of one compiled step: input slots and video patches."""

    slots: int
    patches: int


@dataclasses.dataclass(frozen=True)
class LaneOutput:
    """What one lane put out in one micro-turn.

    Attributes:
        tokens: ids with their closer.
        written, said, delegated: text per channel.
        closer: the micro-turn's closer.
        mel: float32 ``[R, Z]``.
        waveform: float32 ``[3200]``.
        forgotten_text: text slots that gave way in this micro-turn, because nothing else was left.
    """

    tokens: tuple[int, ...]
    written: str
    said: str
    delegated: str
    closer: Control
    mel: np.ndarray
    waveform: np.ndarray
    forgotten_text: int = 0


def buckets(config: InteractionConfig) -> tuple[Bucket, ...]:
    """The input sizes that are compiled, smallest first: sound alone, sound and video, all."""
    sound = config.grid.audio_frames + 1
    patches = config.vision.max_patches
    return (
        Bucket(sound, 0),
        Bucket(sound + patches, patches),
        Bucket(config.max_input_slots, patches),
    )


def system_pieces(text: str, tokenizer: Tokenizer, config: InteractionConfig) -> list[TextIn]:
    """System text cut into what one micro-turn takes."""
    ids, most = tokenizer.encode(text), config.max_text_in - 1
    if ids and most < 1:
        raise ValueError(f"system text needs max_text_in of at least 2, not {config.max_text_in}")
    return [
        TextIn(Control.SYSTEM, tuple(ids[start : start + most]))
        for start in range(0, len(ids), most)
    ]


def pinned_slots(pieces: Sequence[TextIn]) -> int:
    """Slots that these pieces pin."""
    return sum(1 + len(piece.tokens) for piece in pieces if piece.source is Control.SYSTEM)


@dataclasses.dataclass
class _Host:
    """What a lane's session has beside the device state."""

    reader: ChannelReader
    waiting: list[TextIn]
    pinned: int = 0
    forgotten: int = 0


class Lanes:
    """B sessions stepped in lockstep; every lane holds a fresh one at first.

    Args:
        params: the whole tree.
        config: the model.
        lanes: B.
        seed: of the lanes' noise.
        tokenizer: reads the text; None: bytes.
    """

    def __init__(
        self,
        params: dict,
        config: InteractionConfig,
        *,
        lanes: int = 1,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
    ):
        # Unrolled layers train faster but triple the time that compiling the step takes.
        stack = dataclasses.replace(config.transformer, unroll=1)
        config = dataclasses.replace(config, transformer=stack)
        self.params, self.config = params, config
        self.weave, self.grid = config.weave, config.grid
        self.tokenizer = tokenizer or read_tokenizer()
        self.lanes = lanes
        self._step = compile_step(config)
        self._buckets = buckets(config)
        self.bucket = self._buckets[0]  # the one of the last step
        self._host = [self._fresh() for _ in range(lanes)]
        self._free: set[int] = set()
        self._fingerprint = fingerprint(params, config)
        self.state = init_state(config, lanes, seed=seed)

    @property
    def state(self) -> SessionState:
        """The device state of every lane, to copy (`step` gives its arrays away) or to replace.

        What a lane's text channels hold back is not in it: that is the reader's.
        """
        return self._state

    @state.setter
    def state(self, state: SessionState) -> None:
        self._state = state
        self.next = np.array(state.micro_turn)  # each lane's next micro-turn

    @property
    def pinned_limit(self) -> int:
        """Slots of system text that a lane takes at most: the rest must hold a micro-turn."""
        return self.config.global_slots - self.config.weave.max_slots

    def warm_up(self) -> None:
        """Compile every bucket on a state that is thrown away, side by side in threads."""

        def compile_bucket(bucket: Bucket) -> None:
            inputs = weave_inputs(
                [None] * self.lanes,
                self.config.weave,
                slots=bucket.slots,
                patches=bucket.patches,
            )
            scratch = init_state(self.config, self.lanes)
            jax.block_until_ready(self._step(self.params, scratch, inputs))

        def compile_copies() -> None:
            scratch, fresh = (init_state(self.config, lanes) for lanes in (self.lanes, 1))
            take_lane(scratch, 0, self.config)
            int(fresh.micro_turn[0])
            jax.block_until_ready(put_lane(scratch, fresh, 0, self.config))

        with concurrent.futures.ThreadPoolExecutor(len(self._buckets) + 1) as pool:
            copies = pool.submit(compile_copies)
            list(pool.map(compile_bucket, self._buckets))
            copies.result()

    # ------------------------------------------------------------ sessions

    def open(self, *, seed: int = 0, system: str = "") -> int:
        """Admit a session to a free lane.

        Args:
            seed: of its noise.
            system: text that typed memory never forgets; fed in its first micro-turns.

        Returns:
            Its lane.

        Raises:
            ValueError: no lane is free, more is pinned than a lane can hold, or the memory policy
                is one that pins nothing.
        """
        if not self._free:
            raise ValueError(f"all of lanes={self.lanes} lanes hold a session; close one first")
        policy = self.config.memory.policy
        if system and policy is not Policy.TYPED:
            raise ValueError(f"memory.policy={policy.value} forgets system text; typed keeps it")
        pieces = system_pieces(system, self.tokenizer, self.config)
        self._check_pinned(pinned_slots(pieces))
        lane = min(self._free)
        fresh = init_state(self.config, 1, seed=seed)
        self._put(lane, fresh, dataclasses.replace(self._fresh(), waiting=pieces))
        return lane

    def close(self, lane: int) -> None:
        """End a lane's session; the lane is free."""
        self._held(lane)
        self._free.add(lane)

    def snapshot(self, lane: int) -> Snapshot:
        """The session of a lane as it is between two micro-turns; the lane goes on untouched."""
        self._held(lane)
        host = self._host[lane]
        return Snapshot.of(
            take_lane(self._state, lane, self.config),
            fingerprint=self._fingerprint,
            reader=host.reader.state(),
            waiting=tuple(host.waiting),
            pinned=host.pinned,
            forgotten=host.forgotten,
        )

    def restore(self, lane: int, snapshot: Snapshot) -> None:
        """Put a session, from this process or another, into a lane; what it held is gone.

        It goes on bit for bit in any lane of a program of as many lanes.

        Raises:
            ValueError: it was taken with other parameters or another configuration.
        """
        if snapshot.fingerprint != self._fingerprint:
            raise ValueError(
                f"snapshot fingerprint={snapshot.fingerprint}: it was taken with other parameters "
                f"or another configuration than {self._fingerprint} of these lanes"
            )
        if not 0 <= lane < self.lanes:
            raise ValueError(f"lane={lane} is not one of lanes={self.lanes}")
        host = self._fresh()
        host.reader.resume(snapshot.reader)
        host.waiting = list(snapshot.waiting)
        host.pinned, host.forgotten = snapshot.pinned, snapshot.forgotten
        self._put(lane, snapshot.state(init_state(self.config, 1)), host)

    def fork(self, lane: int) -> int:
        """A second session that begins where this one stands, in a free lane; gives its lane."""
        if not self._free:
            raise ValueError(f"all of lanes={self.lanes} lanes hold a session; close one first")
        twin = min(self._free)
        self.restore(twin, self.snapshot(lane))
        return twin

    def _fresh(self) -> _Host:
        return _Host(ChannelReader(self.tokenizer), [])

    def _put(self, lane: int, one: SessionState, host: _Host) -> None:
        self._state = put_lane(self._state, one, lane, self.config)
        self.next[lane] = int(one.micro_turn[0])
        self._host[lane] = host
        self._free.discard(lane)

    def _held(self, lane: int) -> None:
        if not 0 <= lane < self.lanes or lane in self._free:
            raise ValueError(f"lane={lane} holds no session; lanes={self.lanes}, free={self._free}")

    def _check_pinned(self, pinned: int) -> None:
        typed = self.config.memory.policy is Policy.TYPED and "global" in self._state.cache
        if typed and pinned > self.pinned_limit:
            raise ValueError(
                f"system text takes {pinned} slots, which would be kept for ever; a lane of "
                f"global_slots={self.config.global_slots} can pin {self.pinned_limit}"
            )

    # ------------------------------------------------------------ stepping

    def step(
        self, inputs: Sequence[LaneInput | None], *, bucket: Bucket | None = None
    ) -> list[LaneOutput | None]:
        """One micro-turn of every lane that has an input; None: the lane stands still.

        Args:
            inputs: one per lane.
            bucket: the compiled size to use; None: the smallest that holds every input.

        Raises:
            ValueError: an input that does not fit, or is not of its lane's next micro-turn, or is
                for a lane without a session. No lane has moved then.
        """
        inputs = list(inputs)
        pinned = {}
        for lane, item in enumerate(inputs):
            if item is None:
                continue
            self._held(lane)
            if item.micro_turn != self.next[lane]:
                raise ValueError(
                    f"lane {lane} is at micro_turn={self.next[lane]}, its input is of "
                    f"micro_turn={item.micro_turn}"
                )
            inputs[lane] = item = self._with_waiting(lane, item)
            host = self._host[lane]
            pinned[lane] = host.pinned + pinned_slots(item.text_in)
            fed = item.text_in[:1] == tuple(host.waiting[:1])
            self._check_pinned(pinned[lane] + pinned_slots(host.waiting[fed:]))
        self.bucket = bucket = bucket or self._bucket(inputs)
        woven = weave_inputs(inputs, self.config.weave, slots=bucket.slots, patches=bucket.patches)
        self._state, outputs = self._step(self.params, self._state, woven)
        self.next += woven.active
        for lane, count in pinned.items():
            self._host[lane].pinned = count
            if inputs[lane].text_in[:1] == tuple(self._host[lane].waiting[:1]):
                del self._host[lane].waiting[:1]
        return self._outputs(inputs, outputs)

    def _with_waiting(self, lane: int, item: LaneInput) -> LaneInput:
        """The input with the next piece of waiting system text, if there is room for it."""
        waiting = self._host[lane].waiting[:1]
        used = sum(1 + len(piece.tokens) for piece in (*item.text_in, *waiting))
        if not waiting or used > self.config.max_text_in:
            return item
        return dataclasses.replace(item, text_in=(*waiting, *item.text_in))

    def _bucket(self, inputs: Sequence[LaneInput | None]) -> Bucket:
        """The smallest bucket that holds every lane's input."""
        frames = self.config.grid.audio_frames
        slots = patches = 0
        for item in inputs:
            if item is None:
                continue
            seen = 0 if item.video is None else len(item.video)
            text = sum(1 + len(piece.tokens) for piece in item.text_in)
            slots = max(slots, seen + text + frames * len(item.audio) + 1)
            patches = max(patches, seen)
        for bucket in self._buckets:
            if slots <= bucket.slots and patches <= bucket.patches:
                return bucket
        return self._buckets[-1]

    def _outputs(self, inputs, outputs) -> list[LaneOutput | None]:
        tokens, mel, waveform, forgotten = jax.device_get(
            (outputs.tokens, outputs.mel, outputs.waveform, outputs.forgotten_text)
        )
        return [
            None
            if item is None
            else self._read(lane, item, tokens[lane], mel[lane], waveform[lane], forgotten[lane])
            for lane, item in enumerate(inputs)
        ]

    def _read(self, lane, item, tokens, mel, waveform, forgotten) -> LaneOutput:
        ids = tuple(int(token) for token in tokens if token >= 0)
        host = self._host[lane]
        text = host.reader.push(item.micro_turn, ids)
        by_channel = dict.fromkeys((Control.WRITE, Control.SAY, Control.DELEGATE), "")
        for piece in text.pieces:
            by_channel[piece.channel] += piece.text
        newly, host.forgotten = int(forgotten) - host.forgotten, int(forgotten)
        return LaneOutput(
            tokens=ids,
            written=by_channel[Control.WRITE],
            said=by_channel[Control.SAY],
            delegated=by_channel[Control.DELEGATE],
            closer=Control.END if text.closer is None else text.closer,
            mel=mel,
            waveform=waveform,
            forgotten_text=newly,
        )
