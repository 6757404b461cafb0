"""What a model does while it trains: figures that choose a checkpoint, a session to look at.

In: averaged parameters, now and then. Out: ``held_out_*`` in the run's metrics, a page, sound and
picture of one session, and whether no earlier look was as good.
"""

import json
import math

from interaction.models.config import InteractionConfig
from interaction.train import processes
from interaction.train.recorder import Recorder


class Watch:
    """Looks at a model every so often; in a job of many processes the first one looks.

    Args:
        config: the model.
        recorder: of the run; its earlier lines hold the best score of a run that is resumed.
        behaviours: those of the curriculum are played; else digits, words and counts.
    """

    def __init__(self, config: InteractionConfig, recorder: Recorder, *, behaviours: bool):
        self._config, self._recorder, self._behaviours = config, recorder, behaviours
        self.best = processes.of_first(self._so_far())

    def _so_far(self) -> float:
        file = self._recorder.workdir / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        scores = [json.loads(line).get("held_out_score") for line in lines]
        return max((score for score in scores if score is not None), default=-math.inf)

    def look(self, step: int, params: dict, turn: int) -> bool:
        """Plays and scores; whether it is the best so far.

        Args:
            step: of the training.
            params: the whole tree, vocoder included.
            turn: which look it is; behaviours take turns in being kept.
        """
        score = 0.0
        if processes.is_first():
            figures, name, record = self._play(params, turn)
            self._recorder.write(step, {f"held_out_{k}": v for k, v in figures.items()})
            self._recorder.sample(step, name, record)
            score = figures["score"]
        score = processes.of_first(score)
        better = score > self.best
        self.best = max(score, self.best)
        return better

    def _play(self, params: dict, turn: int):
        from interaction.eval import validation, watching  # only runs that look need the ears

        if self._behaviours:
            figures = watching.curriculum_validation(params, self._config)
            return figures, *watching.curriculum_session(params, self._config, turn)
        figures = validation.quick_validation(params, self._config)
        return figures, *watching.shipped_session(params, self._config)
