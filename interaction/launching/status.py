"""What the exit status of a job's processes says: done, wrong, or to be run again.

In: exit statuses as a shell or `subprocess` gives them. Out: an `Outcome`. Training ends with
`REQUEUE` when it was told to stop and has saved; launchers of every kind follow the same rule.
"""

import enum
from collections.abc import Iterable

# EX_TEMPFAIL of sysexits.h: the work is saved, run the same command again.
REQUEUE = 75


class Outcome(enum.Enum):
    """What a launcher does next."""

    DONE = "done"
    REQUEUE = "requeue"  # stopped on request, state saved: run again, as often as it happens
    RESTART = "restart"  # a process was killed: run again, a limited number of times
    FAILED = "failed"  # an error that running again would repeat


def outcome(statuses: Iterable[int], *, serves: bool = False) -> Outcome:
    """The outcome of a job from the exit statuses of all its processes.

    A process that was killed (128 + signal, or negative as `subprocess` has it) outweighs all
    else: the errors of the others are then most likely its echo. `REQUEUE` comes next. A server is
    begun again after an error too.
    """
    found = set(statuses)
    if any(
        status < 0 or status > 128 or (serves and status not in (0, REQUEUE)) for status in found
    ):
        return Outcome.RESTART
    if REQUEUE in found:
        return Outcome.REQUEUE
    return Outcome.DONE if found <= {0} else Outcome.FAILED
