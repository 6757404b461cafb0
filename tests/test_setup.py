"""What a fresh machine gets: the lock, the pins and their reasons, the door."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import launch

ROOT = pathlib.Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT_TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PROJECT_TEXT)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    return {normal(n): v for n, v in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, re.M)}


def requirements() -> list[str]:
    project = PROJECT["project"]
    rows = list(project["dependencies"])
    for extra in ("voices", "eval", "serve", "dev"):
        rows += project["optional-dependencies"][extra]
    return rows


def test_lock_holds_names_versions_and_hashes_only():
    assert "://" not in LOCK
    assert "--find-links" not in LOCK
    assert "--index" not in LOCK
    for line in LOCK.splitlines():
        assert re.match(r"    --hash=sha256:[0-9a-f]{64}( \\)?$|[A-Za-z0-9._-]+==", line), line


def test_every_locked_package_has_a_hash():
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    bare = [b.splitlines()[0] for b in blocks if "--hash=sha256:" not in b]
    assert not bare


@pytest.mark.parametrize("requirement", requirements())
def test_lock_covers_what_the_project_asks_for(requirement):
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[\w+\])?(==|>=)([0-9.*]+)$", requirement)
    assert match, f"{requirement} has no version"
    name, relation, version = match.groups()
    found = locked().get(normal(name))
    assert found, f"{name} is not in requirements.lock; run make lock"
    numbers = [int(n) for n in re.findall(r"\d+", version)]
    have = [int(n) for n in re.findall(r"\d+", found)][: len(numbers)]
    assert have == numbers if relation == "==" else have >= numbers


def test_every_pin_states_its_reason():
    rows = re.findall(r'^    "[^"]+(?:==|>=)[^"]+",?(.*)$', PROJECT_TEXT, re.M)
    assert len(rows) > 30
    assert all(re.match(r"\s+# \S+", row) for row in rows), rows


def door(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "command",
    "demo,train,data,data build,eval,serve,submit,import,export,export-hf,aot".split(","),
)
def test_every_command_of_the_door_explains_itself(command):
    result = door(*command.split(), "--help")
    assert result.returncode == 0, result.stderr
    assert f"launch.py {command}" in result.stdout


@pytest.mark.parametrize(("command", "options"), [("eval", "eval"), ("serve", "serving")])
def test_help_waits_for_nothing_heavy(command, options):
    """Options are read without the packages that compute."""
    watched = [sys.executable, "-X", "importtime", str(ROOT / "launch.py"), command, "--help"]
    done = subprocess.run(watched, capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert f"interaction.{options}.options" in imported
    assert imported.isdisjoint({"jax", "flax", "numpy", "scipy"})


def test_unknown_command_names_the_known_ones():
    result = door("dmeo")
    assert result.returncode == 2
    assert "demo" in result.stderr


@pytest.mark.parametrize(
    ("override", "section", "value"),
    [
        ("steps=7", (), 7),
        ("loss.text=0.5", ("loss",), 0.5),
        ("data.voices.names=('a', 'b')", ("data", "voices"), ("a", "b")),
        ("start=runs/a=b", (), "runs/a=b"),
    ],
)
def test_overrides_reach_their_place_and_leave_the_rest(override, section, value):
    before = {"steps": 1, "loss": {"text": 1.0, "speech": 2.0}}
    after = launch.with_overrides(before, [override])
    place = after
    for name in section:
        place = place[name]
    assert place[override.partition("=")[0].split(".")[-1]] == value
    assert after["loss"]["speech"] == 2.0
    assert before == {"steps": 1, "loss": {"text": 1.0, "speech": 2.0}}


@pytest.mark.parametrize("override", ["steps", "=3", "steps.a=3"])
def test_a_malformed_override_is_refused(override):
    with pytest.raises(ValueError, match=f"--set {override}"):
        launch.with_overrides({"steps": 1}, [override])


def test_a_missing_configuration_is_one_sentence(tmp_path):
    result = door("train", "--config", "configs/nan.py", "--workdir", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == "error: --config configs/nan.py: there is no file configs/nan.py\n"
