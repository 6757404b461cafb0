"""Who may import whom: lower folders never import higher ones, flax stays in one file."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Lowest first; a module imports from its own row and from rows above it in this table.
LAYERS = (
    ("shapes", "types", "microturn", "sharding", "configuration"),
    ("streams", "kernels", "checkpoints"),
    ("models",),
    ("session", "data"),
    ("background", "train", "eval", "serving", "launching"),
    ("aot",),
    ("launch",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Reading a released configuration gives the model's own: a file of frozen dataclasses, no compute.
ALLOWED_UPWARD = {("checkpoints", "interaction.models.config")}

FLAX_FILE = "interaction/models/declare.py"
FORBIDDEN = {"torch", "transformers", "tensorflow"}


def imported_modules(source: str) -> set[str]:
    """Every dotted module name that `source` imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside if node.module.count(".") < 2 else {node.module}
    return found


def violations(path: str, source: str) -> list[str]:
    """Sentences about what `path` (relative to the repository) imports and may not."""
    parts = pathlib.PurePosixPath(path).with_suffix("").parts
    own = "launch" if parts == ("launch",) else parts[1] if len(parts) > 1 else ""
    problems = []
    for module in sorted(imported_modules(source)):
        names = module.split(".")
        if names[0] in FORBIDDEN:
            problems.append(f"{path} imports {module}, which is no dependency")
        if names[0] == "flax" and path != FLAX_FILE:
            problems.append(f"{path} imports {module}; only {FLAX_FILE} may")
        if names[0] == "launch":
            problems.append(f"{path} imports {module}; nothing may")
        if names[0] == "interaction" and len(names) > 1 and own not in ("", "__init__"):
            if own not in LEVEL or (names[1] not in LEVEL and len(names) == 2):
                continue  # a name inside interaction/__init__.py
            upward = LEVEL[names[1]] > LEVEL[own]
            if upward and (own, ".".join(names[:3])) not in ALLOWED_UPWARD:
                problems.append(f"{path} imports {module}, which stands above {own}")
    return problems


def python_files() -> list[str]:
    files = [*ROOT.glob("interaction/**/*.py"), ROOT / "launch.py"]
    return sorted(str(f.relative_to(ROOT).as_posix()) for f in files)


def test_every_import_points_downward():
    problems = [p for f in python_files() for p in violations(f, (ROOT / f).read_text())]
    assert not problems, "\n".join(problems)


def test_every_part_of_the_package_has_a_level():
    parts = {p.stem for p in (ROOT / "interaction").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert parts - {"__init__", "__pycache__"} <= set(LEVEL)


@pytest.mark.parametrize(
    ("path", "source", "allowed"),
    [
        ("interaction/models/flow.py", "from interaction.streams import mel", True),
        ("interaction/streams/mel.py", "from interaction.models import flow", False),
        ("interaction/streams/mel.py", "def f():\n    import interaction.session.step", False),
        ("interaction/types.py", "from interaction import models", False),
        ("interaction/models/flow.py", "import flax.linen as nn", False),
        ("interaction/models/declare.py", "import flax.linen as nn", True),
        ("interaction/checkpoints/huggingface.py", "from interaction.models import config", True),
        ("interaction/checkpoints/huggingface.py", "import interaction.models.config", True),
        ("interaction/checkpoints/huggingface.py", "from interaction.models import flow", False),
        ("interaction/checkpoints/native.py", "import torch", False),
        ("interaction/session/loop.py", "from interaction.eval import score", False),
        ("interaction/eval/score.py", "import launch", False),
        ("launch.py", "from interaction.train import loop", True),
    ],
)
def test_the_rule_tells_right_from_wrong(path, source, allowed):
    assert (not violations(path, source)) == allowed
