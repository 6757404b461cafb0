"""The door: nested mappings to checked dataclasses and back.

In: mappings with one thing wrong each. Out: one error that names the field and what is near or
asked for; and the round trip of a whole model through JSON.
"""

import dataclasses
import enum
import json

import pytest
from ml_collections import ConfigDict

from interaction import configuration
from interaction.models.config import AttentionKind, FlowConfig, InteractionConfig
from interaction.sharding import MeshConfig
from interaction.train.loop import TrainConfig
from tests.models_for_tests import tiny


class Colour(enum.Enum):
    """Of a thing."""

    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Inner:
    """A part."""

    rate: float = 1.0
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Thing:
    """With a field of every kind."""

    size: int
    colours: tuple[Colour, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    inner: Inner = Inner()
    maybe: Inner | None = None
    stages: tuple[tuple[int, int], ...] | None = None
    flag: bool = False


GOOD = {
    "as it is": ({"size": 3}, Thing(3)),
    "enums": (
        {"size": 3, "colours": ["red", Colour.BLUE]},
        Thing(3, (Colour.RED, Colour.BLUE)),
    ),
    "whole number as float": ({"size": 3, "pair": (2, 3)}, Thing(3, pair=(2.0, 3.0))),
    "nested": ({"size": 3, "inner": {"rate": 2}}, Thing(3, inner=Inner(2.0))),
    "optional": ({"size": 3, "maybe": {"name": "a"}}, Thing(3, maybe=Inner(name="a"))),
    "none": ({"size": 3, "maybe": None, "stages": None}, Thing(3)),
    "tuples in tuples": (
        {"size": 3, "stages": [[1, 2], [3, 4]]},
        Thing(3, stages=((1, 2), (3, 4))),
    ),
    "made already": ({"size": 3, "inner": Inner(4.0)}, Thing(3, inner=Inner(4.0))),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_built(case):
    values, want = GOOD[case]
    made = configuration.build(Thing, values)
    assert made == want
    assert isinstance(made.pair[0], float)
    assert isinstance(made.inner.rate, float)
    assert configuration.build(Thing, json.loads(json.dumps(configuration.to_dict(made)))) == want
    assert configuration.build(Thing, ConfigDict(values)) == want


BAD = {
    "near key": ({"size": 3, "colour": ["red"]}, r"config has no field 'colour'.*'colours'"),
    "far key": ({"size": 3, "zzz": 1}, r"'zzz'.*known: size, colours"),
    "nested key": ({"size": 3, "inner": {"rat": 1.0}}, r"config\.inner has no field 'rat'.*'rate'"),
    "missing": ({}, r"config lacks size"),
    "wrong type": ({"size": 3.5}, r"config\.size must be of type int, not 3\.5"),
    "flag for number": ({"size": True}, r"config\.size must be of type int, not True"),
    "text for number": ({"size": 3, "inner": {"rate": "1"}}, r"config\.inner\.rate.*float.*'1'"),
    "unknown member": ({"size": 3, "colours": ["green"]}, r"colours\[0\]='green'.*'red', 'blue'"),
    "scalar for list": ({"size": 3, "colours": 4}, r"config\.colours must be a list, not 4"),
    "too short": ({"size": 3, "pair": (1.0,)}, r"config\.pair must hold 2 values"),
    "not a mapping": ({"size": 3, "inner": 4}, r"config\.inner must be a mapping, not 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case):
    values, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        configuration.build(Thing, values)


def test_a_model_survives_json():
    config = tiny()
    values = json.loads(json.dumps(configuration.to_dict(config)))
    assert configuration.build(InteractionConfig, values) == config
    assert values["transformer"]["attention_kinds"][1] == AttentionKind.GLOBAL.value


def test_a_run_names_the_near_key():
    values = configuration.to_dict(TrainConfig(model=tiny(), data=_data()))
    values["optimizer"]["learning_rat"] = 1e-3
    with pytest.raises(ValueError, match=r"optimizer has no field.*'learning_rate'"):
        configuration.build(TrainConfig, values)


def _data():
    from interaction.data.config import DataConfig

    return DataConfig()


CHECKS = {
    "odd features": (FlowConfig, {"time_features": 7}, "time_features=7"),
    "no steps": (FlowConfig, {"steps": 0}, "steps=0"),
    "batch not split": (
        TrainConfig,
        {"mesh": MeshConfig(fsdp=3), "batch": 4},
        "batch_shards=3.*batch=4",
    ),
    "experts not split": (
        TrainConfig,
        {"mesh": MeshConfig(expert=2), "batch": 4},
        "mesh.expert=2.*experts=5",
    ),
    "nothing to drop": (TrainConfig, {"capacity_factor": 1.25}, "capacity_factor=1.25.*expert=1"),
    "no such mesh": (MeshConfig, {"tensor": 0}, "tensor=0"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_dataclasses_check_themselves(case):
    cls, changes, message = CHECKS[case]
    if cls is TrainConfig:
        changes = {"model": tiny(), "data": _data(), **changes}
    with pytest.raises(ValueError, match=message):
        cls(**changes)


MODEL_CHECKS = {
    "kinds differ in length": ({"mlp_kinds": ()}, "attention_kinds has 4 layers and mlp_kinds 0"),
    "heads not given": ({"global_": None}, "GLOBAL.*not given"),
    "too many chosen": ({"experts_per_slot": 6}, "experts_per_slot=6.*experts=5"),
    "no dense width": ({"dense_width": 0}, "dense_width"),
    "more kept than there": ({"unpadded_vocabulary": 300}, "unpadded_vocabulary=300.*275"),
    "no room for control": ({"unpadded_vocabulary": 260}, "260 logits; 270"),
    "speech not divided": ({"speech_slots": 3}, "speech_slots=3.*16"),
    "ring too small": ({"global_slots": 12}, "global_slots=12.*26"),
}


@pytest.mark.parametrize("case", MODEL_CHECKS)
def test_a_model_checks_itself(case):
    changes, message = MODEL_CHECKS[case]
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
