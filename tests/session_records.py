"""Made-up records of sessions, for tests of what is made of them."""

import numpy as np

from interaction.session.record import MicroTurnRecord, SessionRecord

RATE = 16_000
WIDTH = 3_200


def tone(hertz: float, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(WIDTH) / RATE)).astype(np.float32)


def turn(micro_turn: int, **changes) -> MicroTurnRecord:
    silent = np.zeros(WIDTH, np.float32)
    values = {
        "micro_turn": micro_turn,
        "heard_audio": silent,
        "lateness": (0,),
        "video_frame": None,
        "text_in": (),
        "written": "",
        "said": "",
        "delegated": "",
        "closer": "pass",
        "spoken_audio": silent,
        "play_start_seconds": 0.2 * (micro_turn + 1) + 0.025,
        "step_milliseconds": 25.0,
    }
    return MicroTurnRecord(**{**values, **changes})


def session(**changes) -> SessionRecord:
    """Nine micro-turns: a tone is heard in 1, the answer is written in 2 and spoken in 3 and 4."""
    frame = np.zeros((30, 50, 3), np.uint8)
    frame[:, :25] = (200, 30, 30)
    turns = (
        turn(0, text_in=("hello </script> $title",)),
        turn(1, heard_audio=tone(300), video_frame=frame),
        turn(2, written="five", closer="end", video_frame=frame, lateness=(0, 2)),
        turn(3, said="six", closer="speak", spoken_audio=tone(500)),
        turn(4, closer="speak", spoken_audio=tone(500)),
        turn(5, delegated="look it up", step_milliseconds=230.0),
        turn(6, lateness=(), dropped=1),
        turn(7, closer="yield"),
        turn(8),
    )
    values = {"sample_rate": RATE, "micro_turns": turns, "pace": "simulated", "checkpoint": "none"}
    return SessionRecord(**{**values, **changes})
