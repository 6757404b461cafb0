"""Records the voice that the model learns to speak with.

Question: does the recogniser that scores the model understand the recordings it learns from?
Command: python -m experiments.record_target_voice (needs the extras `voices` and `eval`)
Cost: 20 seconds on one core.
Expectation: 100 % at a slow, even way of speaking; fewer at piper's defaults.
Finding: 104 of 104 renderings of zero..twelve are recognised at length scale 1.25 and noise 0.4
(50 of 52 at length scale 1.0 and noise 0.5: two of four "two" were heard as "ten").
"""

import functools

from interaction.data.target_voice import WORDS, record, save
from interaction.data.voices import PiperStyle
from interaction.eval.recognise import RECOGNISER, recognise


def main() -> None:
    """Records, prints the score and writes the files beside `interaction/data/target_voice.py`."""
    kept, facts = record(functools.partial(recognise, words=WORDS), style=PiperStyle())
    save(kept, facts | {"recogniser": RECOGNISER})
    right, tries = sum(facts["recognised"].values()), facts["tries"] * len(WORDS)
    print(f"{right} of {tries} renderings recognised; {len(kept)} kept")


if __name__ == "__main__":
    main()
