"""Two systems measured in turns, and what their times say.

In: seconds of ours and of the peer, taken alternately in one run. Out: medians, the ratio of
medians with a bootstrap interval over blocks (neighbouring measurements share their luck), and
the course over the run in coarse bins.
"""

import itertools
import json
import pathlib
import subprocess
from collections.abc import Sequence

import numpy as np

BLOCK = 10


class Peer:
    """Another system in its own process, asked over a pipe: a line of JSON each way.

    Args:
        python: interpreter of its environment.
        script: what serves there.
        hello: the first request; its reply is `self.facts`.
    """

    def __init__(self, python: str, script: pathlib.Path, hello: dict):
        # -P: the script's own folder holds names that the peer's packages look for.
        self._process = subprocess.Popen(
            [python, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self.ask(**hello)

    def ask(self, **request) -> dict:
        """One request and its reply.

        Raises:
            RuntimeError: the peer has ended; its own message is on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median, tails and smallest, in milliseconds."""
    values = 1000 * np.asarray(seconds)
    points = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9}
    found = {name: float(np.percentile(values, at)) for name, at in points.items()}
    return {name: round(v, 3) for name, v in (found | {"min": float(values.min())}).items()}


def ratio(ours: Sequence[float], peers: Sequence[float], *, draws: int = 2000) -> dict:
    """Median of ours over median of the peer's, with its 95 % bootstrap interval.

    Pairs are drawn again in blocks of 10 neighbours.
    """
    a, b = np.asarray(ours), np.asarray(peers)
    if len(a) != len(b):
        raise ValueError(f"ours has {len(a)} times, peers {len(b)}; they come in pairs")
    picked = _drawn_again(len(a), draws)
    drawn = np.median(a[picked], axis=1) / np.median(b[picked], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = float(np.median(a) / np.median(b))
    return {
        "ours_over_peer": round(value, 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "peer_over_ours": round(1 / value, 2),
        "pairs": len(a),
    }


def median_of_ratios(ours: Sequence[float], peers: Sequence[float], *, draws: int = 2000) -> dict:
    """Median over pairs of ours / the peer's, with its interval as in `ratio`.

    Where times have two heights (a micro-turn that speaks, and one that does not), the median of
    one side can lie between them, and a ratio of medians moves with the share of each.
    """
    ratios = np.asarray(ours) / np.asarray(peers)
    drawn = np.median(ratios[_drawn_again(len(ratios), draws)], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    names = {"median": np.median(ratios), "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in names.items()} | {"pairs": len(ratios)}


def _drawn_again(pairs: int, draws: int) -> np.ndarray:
    """Indices of bootstrap draws ``[draws, n]``, in blocks of neighbours."""
    size = min(BLOCK, pairs)
    rng = np.random.default_rng(0)
    starts = rng.choice(np.arange(pairs - size + 1), (draws, -(-pairs // size)))
    return (starts[:, :, None] + np.arange(size)).reshape(draws, -1)


def course(seconds: Sequence[float], *, bins: int = 10) -> list[dict]:
    """Median milliseconds in coarse bins of the run."""
    edges = np.linspace(0, len(seconds), min(bins, len(seconds)) + 1).astype(int)
    return [
        {"from": int(a), "to": int(b), "p50": round(1000 * float(np.median(seconds[a:b])), 3)}
        for a, b in itertools.pairwise(edges)
    ]


def write(path: pathlib.Path, content: dict) -> None:
    """JSON with one number a line at most; says where."""
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")
