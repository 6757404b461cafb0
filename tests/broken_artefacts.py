"""What can be wrong with an artefact: how to harm its folder, and what its reader must say.

In: the folder of an artefact. Out: it is harmed; and the pattern of the one sentence due.
"""

import json
import pathlib

from interaction.serving import manifest


def edit(folder: pathlib.Path, **changes) -> None:
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    for place, value in changes.items():
        *sections, field = place.split("__")
        section = values
        for name in sections:
            section = section[int(name) if name.isdigit() else name]
        section[int(field) if field.isdigit() else field] = value
    path.write_text(json.dumps(values))


def flip(folder: pathlib.Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-100] ^= 1
    (folder / name).write_bytes(content)


def garbage(folder: pathlib.Path) -> None:
    """Bytes that are no program although their hash is as recorded."""
    (folder / "fresh.exported").write_bytes(b"no program")
    edit(folder, programs__0__exported=manifest.configuration.to_dict(
        manifest.file_of(folder, "fresh.exported")))  # fmt: skip


BROKEN = {
    "platform": (
        lambda f: edit(f, platform="tpu"),
        "exported for platform=tpu, this process runs on cpu",
    ),
    "unknown platform": (lambda f: edit(f, platform="abacus"), "abacus.*is not one of"),
    "program": (lambda f: flip(f, "step_5_0.exported"), "step_5_0.exported is not the file"),
    "stablehlo": (lambda f: flip(f, "admit.stablehlo"), "admit.stablehlo is not the file"),
    "no program": (garbage, "cannot read .*fresh.exported"),
    "missing": (lambda f: (f / "admit.exported").unlink(), "admit.exported is missing"),
    "outside": (
        lambda f: edit(f, programs__0__exported__name="../fresh.exported"),
        "outside its folder",
    ),
    "weights": (lambda f: flip(f, "params.safetensors"), "params.safetensors is not the file"),
    "weights shape": (
        lambda f: edit(f, parameters__0__shape=[25]),
        r"float32\[24\] where the manifest lists argument audio/norm as float32\[25\]",
    ),
    "state type": (
        lambda f: edit(f, state__0__dtype="float16"),
        "where the manifest lists result audio_carry as float16",
    ),
    "fewer leaves": (lambda f: edit(f, outputs=[]), r"results?, the manifest lists"),
    "version": (lambda f: edit(f, version=99), "version=99, this runtime reads version 2"),
    "format": (lambda f: edit(f, format="cake"), "format='cake'"),
    "unknown field": (lambda f: edit(f, speed=3), "no field 'speed'"),
    "convention": (
        lambda f: edit(f, made__calling_convention=3),
        "calling convention 3, jax .* reads",
    ),
    "newer": (lambda f: edit(f, made__jax="99.1.0"), "jax 99.1.0, newer than the running"),
    "old": (
        lambda f: edit(f, made__jax="0.9.0", made__date="2001-02-03"),
        "days ago by jax 0.9.0",
    ),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "it has no manifest.json"),
    "no json": (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
}
