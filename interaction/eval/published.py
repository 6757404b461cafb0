"""Figures that others have published, beside which the report puts ours.

In: nothing. Out: `PUBLISHED`. None of them was measured here, and none on our generated sets: each
says on which data, by whom, by which mode's rule, and which of our rows it is to be read against.
"""

import dataclasses
import fnmatch
from typing import Any

from interaction.eval.suite import Mode

_TML = "Thinking Machines Lab, announcement of interaction models, 2026"
_FDB1 = "Full-Duplex-Bench, README of the authors' repository, 2026-04"
_FDB15 = "Full-Duplex-Bench v1.5, arXiv 2507.23159 v4, table 2"
_FDB3 = "Full-Duplex-Bench v3, README of the authors' repository"
_OPEN = "bojieli/OpenRealtime, full run of v1.5"


@dataclasses.dataclass(frozen=True)
class Published:
    """A figure of somebody else's.

    Attributes:
        suite: of ours.
        scenes: of our rows, those of the authors' folders and of the generated ones.
        figure: name of our row; an asterisk stands for whatever a row says there.
        system: what they measured.
        value: in the unit of our row.
        data: on which they measured it.
        source: who published it.
        mode: whose rule made it: COMPAT the official scorer's, STRICT where the announced protocol
            is what our strict mode computes and no public scorer does.
        note: what has to be known to read it.
    """

    suite: str
    scenes: tuple[str, ...]
    figure: str
    system: str
    value: float
    data: str
    source: str
    mode: Mode = Mode.COMPAT
    note: str = ""

    def stands_beside(self, suite: str, scene: str, figure: str) -> bool:
        """Whether it is to be read against that row of ours."""
        named = fnmatch.fnmatchcase(figure, self.figure)
        return suite == self.suite and scene in self.scenes and named

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return dataclasses.asdict(self) | {"mode": self.mode.value}


_ANNOUNCED_SYSTEMS = (
    "TML-Interaction-Small",
    "GPT-realtime-2.0 minimal",
    "GPT-realtime-1.5",
    "Gemini-3.1-flash-live minimal",
    "Qwen3.5-Omni-plus-realtime",
    "GPT-realtime-2.0 xhigh",
    "Gemini 3.1 high",
)
_BACKGROUND = "TML with its background agent"
_UNDEFINED = "the announcement does not define the average; our row is our reading of it"
_WINDOW = "the announcement gives no width of the window"
# The announcement takes the last number after the penultimate repetition, as STRICT does; the
# public scorer, which COMPAT follows, takes the first number of all.
_OWN_PROTOCOL = ("repcount",)
# suite, scenes, row, values in the order of the systems, data, note
_ANNOUNCED = (
    (
        "fdb_v1",
        ("candor_turn_taking", "turn_taking", "generated_turn_taking"),
        "latency, clipped at 0 (s)",
        (0.40, 1.18, 0.59, 0.57, 2.14, 1.63, 0.94),
        "the authors' v1 set",
        "its plot and its table differ for Gemini (0.95 and 1.50 in the plot)",
    ),
    (
        "fdb_v15",
        ("all",),
        "right behaviour, mean of scenes (%)",
        (77.8, 46.8, 48.3, 54.3, 39.0, 47.8, 45.5),
        "the authors' v1.5 set",
        _UNDEFINED,
    ),
    (
        "fdb_v3",
        ("all",),
        "response quality",
        (0.828, 0.80, 0.779, 0.685, 0.60, 0.81, 0.714),
        "100 recordings of v3",
        _BACKGROUND,
    ),
    (
        "fdb_v3",
        ("all",),
        "Pass@1, *",
        (0.68, 0.52, 0.55, 0.48, 0.50, 0.58, 0.48),
        "100 recordings of v3",
        _BACKGROUND,
    ),
    (
        "qivd",
        ("all",),
        "accuracy (%), *",
        (54.0, 57.5, 41.2, 54.7, 59.0, 58.2, 56.1),
        "QIVD",
        "GPT-4o-mini judges",
    ),
    (
        "audio_multichallenge",
        ("all",),
        "APR: every rubric item met (%)",
        (43.4, 37.6, 34.7, 26.8, None, 48.5, 36.1),
        "Audio MultiChallenge, 452 conversations",
        "other systems as Scale AI published them",
    ),
    (
        "bigbench_audio",
        ("all",),
        "accuracy (%)",
        (75.7, 71.8, 81.4, 71.3, 73.0, 96.6, 96.6),
        "Big Bench Audio, 1,000 questions",
        "96.5 for TML with its background agent",
    ),
    (
        "ifeval_spoken",
        ("spoken",),
        "mean of the four accuracies (%)",
        (82.1, 81.7, 68.1, 67.6, 80.3, 83.2, 82.8),
        "VoiceBench IFEval",
        "which of the four accuracies is not said",
    ),
    (
        "ifeval",
        ("text",),
        "mean of the four accuracies (%)",
        (89.7, 89.6, 87.5, 85.8, 83.4, 95.2, 90.0),
        "IFEval, 541 prompts",
        "which of the four accuracies is not said",
    ),
    (
        "harmbench",
        ("standard", "all"),
        "refusal rate (%)",
        (99.0, 99.5, 100.0, 99.0, 99.5, 100.0, 98.0),
        "HarmBench",
        "multiples of 0.5 %: 200 prompts, probably the standard subset",
    ),
    ("timespeak", ("spoken",), "macro accuracy, *", (64.7, 4.3), "private TimeSpeak set", _WINDOW),
    ("cuespeak", ("spoken",), "macro accuracy, *", (81.7, 2.9), "private CueSpeak set", _WINDOW),
    ("repcount", ("spoken",), "off-by-one accuracy (%)", (35.4, 1.3), "RepCount-A, filtered", ""),
    (
        "proactive_video_qa",
        ("spoken",),
        "PAUC at omega 0.5, mean of *",
        (33.5, 25.0),
        "ProactiveVideoQA",
        "0-100; silence scores 25",
    ),
    (
        "charades",
        ("spoken",),
        "mIoU (%)",
        (32.4, 0.0),
        "Charades",
        "how one action per video is chosen is not said",
    ),
)

# Figures of Full-Duplex-Bench v1's authors: scenes, row, then PersonaPlex ... GPT-Realtime.
_V1_SYSTEMS = ("PersonaPlex", "dGSLM", "Moshi", "Freeze-Omni", "Gemini Live 2.0", "GPT-Realtime")
_PAUSE = ("synthetic_pause_handling", "pause_handling", "generated_pause_handling")
_CANDOR_PAUSE = ("candor_pause_handling",)
_BACKCHANNEL = ("icc_backchannel", "backchannel", "generated_backchannel")
_TURN = ("candor_turn_taking", "turn_taking", "generated_turn_taking")
_CUT_IN = ("synthetic_user_interruption", "user_interruption", "generated_user_interruption")
_TAKEN, _LATE = "takeover rate", "latency, clipped at 0 (s)"
_RATE, _FAR = "backchannels per second", "Jensen-Shannon distance to people"
_V1 = (
    (_PAUSE, _TAKEN, (0.584, 0.934, 0.985, 0.642, 0.255, 0.010), "synthetic"),
    (_CANDOR_PAUSE, _TAKEN, (0.662, 0.935, 0.980, 0.481, 0.310, 0.120), "Candor"),
    (_BACKCHANNEL, _TAKEN, (0.327, 0.691, 1.0, 0.636, 0.091, 0.0), "ICC"),
    (_BACKCHANNEL, _RATE, (0.025, 0.015, 0.001, 0.001, 0.012, 0.007), "ICC"),
    (_BACKCHANNEL, _FAR, (0.649, 0.934, 0.957, 0.997, 0.896, 0.980), "ICC"),
    (_TURN, _TAKEN, (0.992, 0.975, 0.941, 0.336, 0.655, 1.0), "Candor"),
    (_TURN, _LATE, (0.070, 0.352, 0.265, 0.953, 1.301, 1.470), "Candor"),
    (_CUT_IN, _TAKEN, (1.0, 0.917, 1.0, 0.867, 0.891, 0.970), "synthetic"),
    (_CUT_IN, "rating of the reply (0-5)", (4.210, 0.201, 0.765, 3.615, 3.376, 3.850), "synthetic"),
    (_CUT_IN, _LATE, (0.400, 2.531, 0.257, 1.409, 1.183, 1.500), "synthetic"),
)
# v1.5: scene, then respond, resume, uncertain, unknown, stop and response latency of GPT-4o.
_V15 = (
    ("user_interruption", (0.78, 0.10, 0.02, 0.12, 0.23, 1.50), (0.81, 2.05)),
    ("user_backchannel", (0.03, 0.70, 0.01, 0.25, 0.21, 1.32), (0.54, 1.78)),
    ("talking_to_other", (0.91, 0.02, 0.01, 0.06, 0.18, 1.16), (0.98, 2.10)),
    ("background_speech", (0.93, 0.04, 0.00, 0.03, 0.18, 1.26), (0.43, 1.82)),
)
_V15_ROWS = (
    "C_RESPOND (share)",
    "C_RESUME (share)",
    "C_UNCERTAIN_HANDLING (share)",
    "C_UNKNOWN (share)",
    "stop latency (s)",
    "response latency (s)",
)
_V3 = (
    ("tool selection F1", (0.876, 0.817, 0.803)),
    ("argument accuracy, *", (0.680, 0.588, 0.562)),
    ("response quality", (0.792, 0.718, 0.600)),
    ("Pass@1, *", (0.600, 0.540, 0.450)),
    ("turn taken (rate)", (0.96, 0.78, 1.00)),
    ("interrupted the user (rate)", (0.135, 0.192, 0.330)),
)
_V3_DONE = (6.89, 4.25, 10.12)
_V3_CORRECTED = (0.588, 0.353, 0.176)
_V3_SYSTEMS = ("GPT-Realtime-1.5", "Gemini 3.1", "cascade")


def _all() -> list[Published]:
    found = []
    for suite, scenes, row, values, data, note in _ANNOUNCED:
        for system, value in zip(_ANNOUNCED_SYSTEMS, values, strict=False):
            if value is not None:
                mode = Mode.STRICT if suite in _OWN_PROTOCOL else Mode.COMPAT
                found.append(Published(suite, scenes, row, system, value, data, _TML, mode, note))
    for scenes, row, values, data in _V1:
        for system, value in zip(_V1_SYSTEMS, values, strict=True):
            item = ("fdb_v1", scenes, row, system, value, f"the authors' v1 set, {data}", _FDB1)
            found.append(Published(*item))
    for scene, gpt, gemini in _V15:
        scenes, data = (scene, f"generated_{scene}"), "the authors' v1.5 set"
        for row, value in zip(_V15_ROWS, gpt, strict=True):
            system = "GPT-4o-realtime 2024-12-17"
            found.append(Published("fdb_v15", scenes, row, system, value, data, _FDB15))
        for row, value in zip(_V15_ROWS[4:], gemini, strict=True):
            system = "Gemini 3.1 Flash Live"
            found.append(Published("fdb_v15", scenes, row, system, value, data, _OPEN))
    for row, values in _V3:
        for system, value in zip(_V3_SYSTEMS, values, strict=True):
            item = ("fdb_v3", ("all",), row, system, value, "100 recordings of v3", _FDB3)
            found.append(Published(*item))
    found += _v3_more()
    return found


def _v3_more() -> list[Published]:
    """Times of completion, and Pass@1 where the user corrects himself."""
    found = []
    rule = "until the key information, found by GPT-4o; our row: until the last key word"
    for system, value in zip(_V3_SYSTEMS, _V3_DONE, strict=True):
        row, data = "everything said after the user's end (s)", "100 recordings of v3"
        item = ("fdb_v3", ("all",), row, system, value, data, _FDB3, Mode.COMPAT, rule)
        found.append(Published(*item))
    for system, value in zip(_V3_SYSTEMS, _V3_CORRECTED, strict=True):
        data = "17 recordings of v3 with a self-correction"
        item = ("fdb_v3", ("taken back",), "Pass@1, *", system, value, data, _FDB3)
        found.append(Published(*item))
    return found


PUBLISHED: tuple[Published, ...] = tuple(_all())


def beside(suite: str, scene: str, figure: str) -> list[Published]:
    """What is published for a row of ours."""
    return [item for item in PUBLISHED if item.stands_beside(suite, scene, figure)]
