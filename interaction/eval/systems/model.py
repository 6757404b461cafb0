"""Our model as a system under test: a native checkpoint, or any board that steps one lane.

In: every micro-turn's input. Out: what the lane says and writes as text, its sound at playback
times, and what it delegates as tool events. Results of calls come back to it as text.
"""

from collections.abc import Callable
from typing import Any, Protocol

from interaction.eval.records import MicroTurnInput, OutputEvent, Sample
from interaction.eval.runner import imported
from interaction.microturn import Grid
from interaction.models.checkpoint import load_model
from interaction.models.config import InteractionConfig
from interaction.session.dialogue import Dialogue, LaneText, seed_of
from interaction.session.lanes import Lanes
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import Tokenizer
from interaction.streams.weave import LaneInput


class Board(Protocol):
    """One lane of a model that can be stepped.

    Attributes:
        weave, grid: sizes of what it takes.
        tokenizer: reads the text.
    """

    weave: WeaveConfig
    grid: Grid
    tokenizer: Tokenizer

    def begin(self, seed: int) -> None:
        """A fresh session."""
        ...

    def step(self, given: LaneInput) -> LaneText:
        """One micro-turn."""
        ...


class LanesBoard:
    """A model through `session.lanes`, compiled when it is made.

    Args:
        params: the whole tree, vocoder included.
        config: the model.
    """

    def __init__(self, params: dict, config: InteractionConfig):
        self._lanes = Lanes(params, config)
        self._lanes.warm_up()
        self.weave, self.grid = config.weave, config.grid
        self.tokenizer = self._lanes.tokenizer

    def begin(self, seed: int) -> None:
        """A fresh session."""
        self._lanes.close(0)
        self._lanes.open(seed=seed)

    def step(self, given: LaneInput) -> LaneText:
        """One micro-turn."""
        output = self._lanes.step([given])[0]
        assert output is not None
        return output


class Model:
    """A board as a system.

    Args:
        board: makes the board.
        name: of the system.
        seed: of the noise, beside the sample's id.
    """

    def __init__(self, board: Callable[[], Board], *, name: str = "model", seed: int = 0):
        self.name, self._board, self._seed = name, board(), seed

    def converse(self, sample: Sample) -> "ModelConversation":
        """A fresh session in the lane."""
        self._board.begin(seed_of(sample.id, self._seed))
        return ModelConversation(self._board, sample.tools)


def from_folder(checkpoint: str, *, name: str, seed: int = 0, board: str = "") -> Model:
    """A folder as a system.

    Args:
        checkpoint: a native checkpoint, or what `board` reads.
        name: of the system.
        seed: of the noise.
        board: ``module:callable`` that makes a `Board` of the folder; "": a native checkpoint.
    """

    def make() -> Board:
        return imported(board)(checkpoint) if board else LanesBoard(*load_model(checkpoint))

    return Model(make, name=name, seed=seed)


class ModelConversation:
    """One session of the board's lane."""

    def __init__(self, board: Board, tools: Any = ()):
        self._board = board
        self._dialogue = Dialogue(board.tokenizer, board.weave, board.grid, tools)

    def step(self, given: MicroTurnInput) -> list[OutputEvent]:
        """One micro-turn: everything the lane puts out, at its border."""
        output = self._board.step(self._dialogue.hear(given))
        return self._dialogue.tell(given.micro_turn, output)

    def close(self) -> None:
        """The lane is taken over by the next session."""
