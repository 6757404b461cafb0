"""Artefacts for platforms that are not here, how old one may be, where compiled ones are kept.

In: a tiny random model, lowered for CUDA and TPU (and compiled for a TPU topology under
`tpu_compile`). Out: programs for one platform alone, and one clear sentence where that is wrong.
"""

import dataclasses
import datetime

import jax
import jax.export
import pytest

import launch
from interaction.models.checkpoint import save_model
from interaction.serving import compilation_cache, export, manifest
from interaction.serving.manifest import ArtefactError, Platform, read_manifest
from interaction.serving.runtime import Runtime, read_program
from interaction.session.lanes import buckets
from tests.artefact_for_tests import CONFIG, exported, jax_cache_settings_kept
from tests.models_for_tests import GLOBAL, MOE, random_params, tiny

# What a program is for does not depend on the layers in it: one, with experts.
ONE_LAYER = tiny(attention_kinds=(GLOBAL,), mlp_kinds=(MOE,), local=None)


@pytest.fixture(scope="module")
def params():
    """Of `ONE_LAYER`."""
    return random_params(ONE_LAYER)


@pytest.mark.parametrize(
    ("jax_version", "days", "message"),
    [
        ("0.11.2", 900, None),  # the release that made it reads it however old it is
        ("0.11.3", 180, None),
        ("0.11.3", 181, "181 days ago"),
        ("0.12.0", 10, None),
        ("0.11.10.dev2026", 10, None),
        ("0.11.1", 10, "newer than the running"),
        ("0.9.9", 10, "newer than the running"),
    ],
)
def test_age(jax_version, days, message):
    made = manifest.Made("2026-01-01", "0.11.2", 10, "tiny")
    today = datetime.date(2026, 1, 1) + datetime.timedelta(days)

    def check():
        manifest.check_age(made, jax_version=jax_version, conventions=range(9, 11), today=today)

    if message is None:
        check()
    else:
        with pytest.raises(ArtefactError, match=message):
            check()


@pytest.fixture
def jax_cache_settings():
    with jax_cache_settings_kept():
        yield


def test_where_compiled_programs_are_kept(monkeypatch, tmp_path, jax_cache_settings):
    use = compilation_cache.use_compilation_cache
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert use() == tmp_path / "interaction" / "compiled"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert compilation_cache.default_folder() == tmp_path / "home/.cache/interaction/compiled"
    assert use(tmp_path / "own") == tmp_path / "own"
    assert use() == tmp_path / "own"  # what is set already (by the environment) stays
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert use("off") is None
    assert not jax.config.jax_enable_compilation_cache


@pytest.mark.parametrize("platform", [Platform.CUDA, Platform.TPU])
def test_export_for_an_accelerator_from_a_machine_without_one(params, tmp_path, platform):
    folder = exported(
        params, tmp_path / "other", slice(0, 1), config=ONE_LAYER, platform=platform, lanes=2
    )
    listed = read_manifest(folder)
    for program in listed.programs:
        found = read_program(folder, listed, program)
        assert found.platforms == (platform.value,)
        assert found.nr_devices == 1
    with pytest.raises(ArtefactError, match=f"platform={platform.value}, this process runs on cpu"):
        Runtime(folder)
    lying = dataclasses.replace(listed, platform=Platform.CPU)
    with pytest.raises(
        ArtefactError, match=f"exported for {platform.value}, the manifest says cpu"
    ):
        read_program(folder, lying, listed.programs[0])


@pytest.mark.tpu_compile
def test_the_tpu_artefact_compiles_for_a_tpu_with_its_state_in_place(tmp_path, monkeypatch):
    """From the reloaded bytes, without a TPU."""
    from jax.experimental import topologies

    for name, value in (("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"), ("TPU_SKIP_MDS_QUERY", "1")):
        monkeypatch.setenv(name, value)
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    place = jax.sharding.SingleDeviceSharding(topology.devices[0])
    every = random_params(CONFIG)
    folder = exported(every, tmp_path / "tpu", slice(1, 2), platform=Platform.TPU, lanes=2)
    listed = read_manifest(folder)
    for program in listed.programs:
        found = read_program(folder, listed, program)
        groups = [
            {
                leaf.name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
                for leaf in listed.group(program, name)
            }
            for name in program.arguments
        ]
        given = [i for i, name in enumerate(program.arguments) if name == "state"]
        compiled = jax.jit(found.call, donate_argnums=given).lower(*groups).compile()
        aliased = compiled.memory_analysis().alias_size_in_bytes
        # A TPU pads small arrays to its tiles, so the bytes are at least the state's.
        assert aliased >= (listed.bytes_of_state if given else 0)


# ---------------------------------------------------------------------------- commands


def test_export_from_the_command_line(params, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "buckets", lambda config: buckets(config)[:1])
    save_model(tmp_path / "model", params, ONE_LAYER)
    command = ["export", "--checkpoint", str(tmp_path / "model"), "--platform", "cuda"]
    command += ["--lanes", "2", "--experts", "int8", "--cache", "bfloat16"]
    command += ["--out", str(tmp_path / "artefact")]
    assert launch.main(command) == 0
    assert "step_5_0.exported" in capsys.readouterr().out
    listed = read_manifest(tmp_path / "artefact")
    assert (listed.platform, listed.lanes, listed.experts) == (Platform.CUDA, 2, "int8")
    types = {leaf.name: leaf.dtype for leaf in (*listed.parameters, *listed.state)}
    assert types["transformer/moe/up/int8"] == "int8"
    assert types["cache/global/key"] == types["cache/global/value"] == "bfloat16"
    assert launch.main(command) == 1
    assert "exists" in capsys.readouterr().err
    assert launch.main([*command[:2], str(tmp_path / "nothing"), *command[3:]]) == 1
    assert "no config.json" in capsys.readouterr().err
