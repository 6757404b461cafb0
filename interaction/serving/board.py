"""An exported artefact as something that steps one lane, micro-turn by micro-turn.

In: the artefact's folder, then each micro-turn's `LaneInput`. Out: text per channel and the
waveform (`serving.artefact_lanes`).
"""

from interaction.serving.artefact_lanes import ArtefactLanes, BoardOutput
from interaction.serving.compilation_cache import use_compilation_cache
from interaction.streams.weave import LaneInput


class ArtefactBoard:
    """Lane 0 of an artefact; the others stay empty.

    Args:
        folder: made by ``launch.py export``; its programs are made ready at once.

    Raises:
        ArtefactError: it cannot be run here.
    """

    def __init__(self, folder: str):
        use_compilation_cache(None)
        self._lanes = ArtefactLanes(folder)
        self._lanes.open()
        self.weave, self.grid = self._lanes.weave, self._lanes.grid
        self.tokenizer = self._lanes.tokenizer

    def begin(self, seed: int) -> None:
        """A fresh session."""
        self._lanes.close(0)
        self._lanes.open(seed=seed)

    def step(self, given: LaneInput) -> BoardOutput:
        """One micro-turn."""
        output = self._lanes.step([given] + [None] * (self._lanes.lanes - 1))[0]
        assert output is not None
        return output
