"""interaction-mini: the model of nano, taught the curriculum.

    python launch.py train --config configs/mini.py --workdir runs/mini

It starts from `checkpoints/nano` (`configs/nano.py`), which hears digits and counts, and learns
when to speak: `interaction/data/curriculum/`. Hardware: one CPU core (AMD EPYC, AVX2) and half of
a second one that prepares data. `get_config("smoke")` runs the same way in two minutes.

On Linux beside other work, start it with
``GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368``
(page faults took up to 42 % of a step's processor time without).
"""

from ml_collections import ConfigDict

from configs import nano

BEHAVIOURS = (
    ("digits", 0.4),
    ("ask", 1.2),
    ("pause", 1.0),
    ("for_others", 0.8),
    ("count_aloud", 1.2),
    ("story", 0.7),
    ("requests", 0.8),
    ("chatter", 0.5),
    ("in_seconds", 1.2),
    ("every_seconds", 1.0),
    ("how_long", 1.0),
    ("cue", 1.0),
    ("check_counting", 1.0),
    ("translate", 1.3),
    ("delegate", 1.5),
)


# What the first part learns last: when to speak, and what to wait for.
LATE_BEHAVIOURS = (
    ("digits", 0.3),
    ("ask", 0.6),
    ("pause", 0.5),
    ("for_others", 0.6),
    ("count_aloud", 0.6),
    ("story", 0.4),
    ("requests", 0.8),
    ("chatter", 0.4),
    ("in_seconds", 3.0),
    ("every_seconds", 2.0),
    ("how_long", 1.2),
    ("cue", 2.5),
    ("check_counting", 2.0),
    ("translate", 0.6),
    ("delegate", 1.6),
)

# The third part: time is kept in the open, cues are shown (`curriculum/timing.py`).
CLOCK_BEHAVIOURS = (
    ("digits", 0.4),
    ("ask", 1.2),
    ("pause", 0.6),
    ("for_others", 0.5),
    ("count_aloud", 0.5),
    ("story", 0.4),
    ("requests", 1.0),
    ("chatter", 0.4),
    ("in_seconds", 2.4),
    ("every_seconds", 1.6),
    ("how_long", 1.2),
    ("cue", 2.6),
    ("check_counting", 1.4),
    ("translate", 0.8),
    ("delegate", 1.4),
)

# The fourth: what is heard and seen is shown too, and voices are varied.
SHOWN_BEHAVIOURS = (
    ("digits", 0.8),
    ("ask", 0.9),
    ("pause", 0.6),
    ("for_others", 0.7),
    ("count_aloud", 0.6),
    ("story", 0.4),
    ("requests", 1.2),
    ("chatter", 0.5),
    ("in_seconds", 2.4),
    ("every_seconds", 1.8),
    ("how_long", 0.8),
    ("cue", 2.6),
    ("check_counting", 1.4),
    ("translate", 0.8),
    ("delegate", 1.2),
)

# The fifth: more names, stories and harmless things than the few that were learnt by heart.
WIDER_BEHAVIOURS = (
    ("digits", 0.8),
    ("ask", 0.9),
    ("pause", 0.6),
    ("for_others", 1.8),
    ("count_aloud", 0.6),
    ("story", 0.5),
    ("requests", 2.6),
    ("chatter", 1.4),
    ("in_seconds", 1.8),
    ("every_seconds", 1.4),
    ("how_long", 0.7),
    ("cue", 1.8),
    ("check_counting", 1.1),
    ("translate", 0.8),
    ("delegate", 1.2),
)
# All of it once more, with what the part before gave up.
WHOLE_BEHAVIOURS = (
    ("digits", 1.0),
    ("ask", 1.1),
    ("pause", 0.6),
    ("for_others", 1.5),
    ("count_aloud", 0.7),
    ("story", 0.5),
    ("requests", 2.2),
    ("chatter", 1.2),
    ("in_seconds", 1.9),
    ("every_seconds", 1.9),
    ("how_long", 0.8),
    ("cue", 2.4),
    ("check_counting", 1.4),
    ("translate", 0.9),
    ("delegate", 1.5),
)
PARTS = ("late", "clock", "shown", "wider", "whole", "moved", "counted", "quieter", "evened")


def get_config(arg: str = "") -> ConfigDict:
    """The run: "" is the first part, `PARTS` are the next; or ``smoke``."""
    if arg not in ("", *PARTS, "smoke"):
        raise ValueError(f"arg={arg!r} must be empty, {', '.join(map(repr, PARTS))} or 'smoke'")
    config = nano.get_config("smoke" if arg == "smoke" else "")
    config.curriculum = dict(
        seed=0,
        plain=dict(config.data, loss_share=0.1),
        plain_share=0.2,
        seen_share=0.18,
        behaviours=BEHAVIOURS,
        slots=608,
        audio=320,
        patches=168,
        speech=80,
        chunks=40,
    )
    del config["data"]
    config.start = "checkpoints/nano"
    config.model.max_text_out = 12  # "seventeen" takes eleven
    config.optimizer = dict(learning_rate=1.2e-3, warmup=100, weight_decay=0.1, decay_share=0.4)
    config.batch = 6
    if arg != "smoke":
        config.steps = 3400
    if arg in PARTS:
        config.optimizer.update(warmup=40, decay_share=0.5, average=0.995)
    if arg == "late":
        config.start, config.steps = "runs/mini/latest", 1150
        config.curriculum.update(seed=1, behaviours=LATE_BEHAVIOURS, plain_share=0.15)
        config.curriculum.seen_share = 0.2
        config.optimizer.learning_rate = 1.0e-3
    if arg == "clock":
        config.start, config.steps = "runs/mini_late/final", 2700
        config.curriculum.update(seed=2, behaviours=CLOCK_BEHAVIOURS, plain_share=0.12)
        config.curriculum.seen_share = 0.28
    if arg == "shown":
        config.start, config.steps = "runs/mini_clock/final", 2500
        config.curriculum.update(seed=3, behaviours=SHOWN_BEHAVIOURS, plain_share=0.22)
        config.curriculum.seen_share = 0.28
        config.curriculum.plain.made_up_motions = 0.55
        config.curriculum.plain.mixture = dict(
            digits=0.48, negatives=0.19, quiet=0.02, flashes=0.08, kicks=0.2, still=0.03
        )
    if arg == "wider":
        config.start, config.steps = "runs/mini_shown/final", 1400
        config.curriculum.update(seed=4, behaviours=WIDER_BEHAVIOURS, plain_share=0.25)
        config.curriculum.seen_share = 0.3
        config.curriculum.plain.made_up_motions = 0.4
        config.curriculum.plain.mixture = dict(
            digits=0.44, negatives=0.2, quiet=0.02, flashes=0.08, kicks=0.23, still=0.03
        )
        config.optimizer.learning_rate = 1.0e-3
    if arg == "whole":
        config.start, config.steps = "runs/mini_wider/final", 2400
        config.curriculum.update(seed=5, behaviours=WHOLE_BEHAVIOURS, plain_share=0.26)
        config.curriculum.update(seen_share=0.3, missed_share=0.01, late_share=0.15)
        config.curriculum.plain.update(made_up_motions=0.55, late_share=0.1, warp=0.15)
        config.curriculum.plain.mixture = dict(
            digits=0.44, negatives=0.2, quiet=0.02, flashes=0.07, kicks=0.24, still=0.03
        )
        config.optimizer.learning_rate = 1.0e-3
    if arg == "moved":
        config.start, config.steps = "runs/mini_whole/final", 2400
        config.curriculum.update(seed=6, behaviours=WHOLE_BEHAVIOURS, plain_share=0.32)
        config.curriculum.update(seen_share=0.3, missed_share=0.01, late_share=0.15)
        config.curriculum.plain.update(made_up_motions=0.65, late_share=0.1, warp=0.15)
        config.curriculum.plain.mixture = dict(
            digits=0.4, negatives=0.16, quiet=0.02, flashes=0.11, kicks=0.27, still=0.04
        )
        config.optimizer.learning_rate = 1.0e-3
    if arg == "counted":
        config.start, config.steps = "runs/mini_moved/final", 2200
        config.curriculum.update(seed=7, behaviours=WHOLE_BEHAVIOURS, plain_share=0.42)
        config.curriculum.update(seen_share=0.28, missed_share=0.01, late_share=0.15)
        config.curriculum.plain.update(made_up_motions=0.8, late_share=0.1, warp=0.15)
        config.curriculum.plain.mixture = dict(
            digits=0.3, negatives=0.12, quiet=0.02, flashes=0.07, kicks=0.45, still=0.04
        )
        config.optimizer.learning_rate = 1.0e-3
    if arg == "quieter":
        config.start, config.steps = "runs/mini_counted/final", 2400
        config.curriculum.update(seed=8, behaviours=WHOLE_BEHAVIOURS, plain_share=0.44)
        config.curriculum.update(seen_share=0.28, missed_share=0.01, late_share=0.15)
        config.curriculum.plain.update(made_up_motions=0.72, late_share=0.1, warp=0.15)
        config.curriculum.plain.mixture = dict(
            digits=0.27, negatives=0.22, quiet=0.02, flashes=0.08, kicks=0.37, still=0.04
        )
        config.optimizer.learning_rate = 1.0e-3
    if arg == "evened":
        config.start, config.steps = "runs/mini_counted/final,runs/mini_quieter/final", 1900
        config.curriculum.update(seed=9, behaviours=WHOLE_BEHAVIOURS, plain_share=0.5)
        config.curriculum.update(seen_share=0.26, missed_share=0.01, late_share=0.15)
        config.curriculum.plain.update(made_up_motions=0.7, late_share=0.1, warp=0.15)
        config.curriculum.plain.human_share = 0.8
        config.curriculum.plain.mixture = dict(
            digits=0.36, negatives=0.22, quiet=0.02, flashes=0.07, kicks=0.3, still=0.03
        )
        config.optimizer.learning_rate = 0.8e-3
    return config
