"""``launch.py serve``: lanes of a checkpoint or of an exported artefact, behind a WebSocket.

In: the command's options (`serving.options`). Out: the exit status of `serving.server.serve`.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable

from interaction.kernels.implementation import Implementation
from interaction.models.checkpoint import load_model
from interaction.models.config import CacheType
from interaction.models.quantise import halve_matrices
from interaction.serving.artefact_lanes import ArtefactLanes
from interaction.serving.compilation_cache import use_compilation_cache
from interaction.serving.manifest import read_manifest
from interaction.serving.server import serve
from interaction.serving.shared_lanes import Stepped, lanes_of_model

LANES = 4  # of a checkpoint, where nobody says


def run(options: argparse.Namespace) -> int:
    """Serve until told to end; the exit status."""
    use_compilation_cache(options.compilation_cache)
    names = ("host", "port", "seed", "drain_seconds", "idle_seconds", "sigterm_status")
    return serve(_lanes(options), **{name: getattr(options, name) for name in names})


def _lanes(options: argparse.Namespace) -> Callable[[], Stepped]:
    """What makes the lanes that are asked for.

    Raises:
        ValueError: other lanes than the artefact has, or kernels, weights or a cache of it.
    """
    if options.artefact is None:
        lanes = LANES if options.lanes is None else options.lanes
        who = Implementation.NATIVE if options.kernels == "native" else None
        params, config = load_model(options.checkpoint, implementation=who)
        params = halve_matrices(params) if options.weights == "bfloat16" else params
        if options.cache is not None:
            config = dataclasses.replace(config, cache_type=CacheType(options.cache))
        return functools.partial(lanes_of_model, params, config, lanes)
    for name, default in (("kernels", "xla"), ("weights", "float32"), ("cache", None)):
        if getattr(options, name) != default:
            raise ValueError(
                f"{name}={getattr(options, name)} is for a checkpoint; "
                f"artefact={options.artefact} has its own"
            )
    there = read_manifest(options.artefact).lanes
    if options.lanes not in (None, there):
        raise ValueError(
            f"lanes={options.lanes}: {options.artefact} was exported with lanes={there}"
        )
    return functools.partial(ArtefactLanes, options.artefact)
