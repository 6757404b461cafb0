"""What ``launch.py eval`` was asked for, made into an `Evaluation`.

In: names of suites, systems, ears and a judge. Out: specifications of how to make them, or one
sentence about what there is no such thing as.
"""

import dataclasses
import os
import pathlib
import urllib.parse
from collections.abc import Mapping

from interaction.eval.judges import Endpoint
from interaction.eval.options import EARS, JUDGE_KEY, JUDGES, SYSTEMS, VOICES
from interaction.eval.runner import Spec
from interaction.eval.suite import Mode
from interaction.eval.suites import SUITES, load_suite, suite_names

_SYSTEMS = "interaction.eval.systems"


@dataclasses.dataclass(frozen=True)
class Given:
    """What systems are made of.

    Attributes:
        checkpoint: folder of a checkpoint or of an artefact; None: not given.
        artefact: ``module:callable`` that makes a board of an artefact (the folder of `serving`
            stands beside this one, so whoever calls names it).
        seed: of the model's noise.
        suites: name -> ``module:Class``, for the oracle.
    """

    checkpoint: str | None = None
    artefact: str | None = None
    seed: int = 0
    suites: Mapping[str, str] = dataclasses.field(default_factory=lambda: SUITES)


def systems(wanted: str, given: Given) -> list[Spec]:
    """Specifications of a comma-separated list of systems.

    Raises:
        ValueError: no such system, or what it is made of is not given.
    """
    return [_system(name.strip(), given) for name in wanted.split(",") if name.strip()]


def _system(wanted: str, given: Given) -> Spec:
    kind, _, place = wanted.partition(":")
    if wanted in ("silent", "echo"):
        return Spec(wanted, f"{_SYSTEMS}.{wanted}:{wanted.capitalize()}")
    if wanted == "stitched":
        return Spec(wanted, f"{_SYSTEMS}.stitched:Stitched")
    if wanted == "oracle":
        options = {"suites": dict(given.suites)}
        return Spec(wanted, f"{_SYSTEMS}.oracle:make_oracle", options)
    if wanted == "model" or (kind == "model" and place):
        return _model(dataclasses.replace(given, checkpoint=place or given.checkpoint))
    if kind == "recorded" and place:
        name = pathlib.Path(place).resolve().name
        return Spec(name, f"{_SYSTEMS}.recorded:Recorded", {"folder": place})
    if kind in ("remote", "live") and place:
        tempo = "lockstep" if kind == "remote" else "live"
        name = urllib.parse.urlparse(place).netloc.replace(":", "_")
        options = {"url": place, "tempo": tempo, "name": name}
        return Spec(name, f"{_SYSTEMS}.remote:Remote", options)
    raise ValueError(f"system {wanted!r} is none of {', '.join(SYSTEMS)}")


def _model(given: Given) -> Spec:
    if given.checkpoint is None:
        raise ValueError("system 'model' needs --checkpoint")
    folder = pathlib.Path(given.checkpoint)
    if not folder.is_dir():
        raise FileNotFoundError(f"--checkpoint {folder}: there is no such folder")
    name = folder.resolve().name
    options = {"checkpoint": given.checkpoint, "name": name, "seed": given.seed}
    if (folder / "manifest.json").is_file():
        if given.artefact is None:
            raise ValueError(f"--checkpoint {folder} is an artefact; nobody said how to run it")
        options["board"] = given.artefact
    return Spec(name, f"{_SYSTEMS}.model:from_folder", options)


def suites(wanted: str) -> dict[str, str]:
    """Name -> ``module:Class`` of a comma-separated list of suites, or of ``all``."""
    return {name: SUITES[name] for name in suite_names(wanted)}


def voices(wanted: str) -> tuple[str, ...]:
    """Engines of a comma-separated list."""
    names = tuple(name.strip() for name in wanted.split(","))
    unknown = [name for name in names if name not in VOICES]
    if unknown:
        raise ValueError(f"voices {unknown[0]!r} is none of {', '.join(VOICES)}")
    return names


def sources() -> str:
    """What every suite's data is, under which licence, how large, and how to get it."""
    told = []
    for name in SUITES:
        source = load_suite(name).source
        facts = dataclasses.asdict(source)
        facts["small set"] = facts.pop("generated")
        lines = [f"{key}: {text}" for key, text in facts.items() if key != "title"]
        told.append("\n  ".join([f"{name}: {source.title}", *lines]))
    return "\n".join(told)


def modes(wanted: str) -> tuple[Mode, ...]:
    """``compat``, ``strict`` or ``both``."""
    return tuple(Mode) if wanted == "both" else (Mode(wanted),)


def ears(wanted: str) -> Spec:
    """Who finds words in sound: ``listen`` or ``text``."""
    if wanted not in EARS:
        raise ValueError(f"ears {wanted!r} is none of {', '.join(EARS)}")
    return Spec(wanted, EARS[wanted])


def judge(wanted: str) -> Spec:
    """Who answers what no formula answers."""
    kind, _, place = wanted.partition(":")
    if wanted == "closed":
        return Spec(wanted, "interaction.eval.judges:ClosedAnswer")
    if wanted == "local":
        return Spec(wanted, "interaction.eval.language_model:local_judge")
    if kind == "endpoint" and "@" in place:
        model, url = place.split("@", 1)
        options = {"model": model, "url": url}
        return Spec(wanted, "interaction.eval.choose:endpoint_judge", options)
    raise ValueError(f"judge {wanted!r} is none of {', '.join(JUDGES)}")


def endpoint_judge(model: str, url: str) -> Endpoint:
    """A judge behind a server; what it answered is kept beside what the ears heard."""
    from interaction.eval.whisper import cache_folder

    key = os.environ.get(JUDGE_KEY, "")
    return Endpoint(url=url, model=model, key=key, cache=cache_folder("judge"))
