"""Parameters, declared once with Flax Linen.

In: a tree of `Parameter` (shape, logical axes, initialiser). Out: three views of it: arrays
(`init`), shapes (`abstract`) and logical axis names (`axes`), all as plain nested dicts. Linen
gives each parameter its own random stream by path, so adding one never changes another. Nothing
outside this file sees a Flax module or a boxed value.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict, meta

Initializer = Any
Specs = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One array: its shape, the logical name of each axis (None: never sharded), its start."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    init: Initializer

    def __post_init__(self):
        if len(self.shape) != len(self.axes):
            raise ValueError(f"shape {self.shape} and axes {self.axes} differ in length")


class _Declared(nn.Module):
    """A Linen module whose parameters are exactly the given (frozen) tree of specs."""

    specs: FrozenDict
    dtype: Any

    @nn.compact
    def __call__(self):
        for name, spec in self.specs.items():
            if isinstance(spec, Parameter):
                boxed = nn.with_logical_partitioning(spec.init, spec.axes)
                self.param(name, boxed, spec.shape, self.dtype)
            else:
                _Declared(specs=spec, dtype=self.dtype, name=name)()


def init(key: jax.Array, specs: Specs, *, dtype=jnp.float32) -> dict:
    """Arrays for `specs`, each drawn from its own fold of `key`."""
    module = _Declared(specs=FrozenDict(specs), dtype=dtype)
    return meta.unbox(module.init(key)["params"])


def abstract(specs: Specs, *, dtype=jnp.float32) -> dict:
    """The same tree as `init` gives, as `jax.ShapeDtypeStruct`."""
    return _map(specs, lambda p: jax.ShapeDtypeStruct(p.shape, dtype))


def axes(specs: Specs) -> dict:
    """The same tree as `init` gives, with a tuple of logical axis names at each leaf."""
    return _map(specs, lambda p: p.axes)


def count(specs: Specs) -> int:
    """Number of parameters."""
    total = 0
    for spec in specs.values():
        if isinstance(spec, Parameter):
            size = 1
            for n in spec.shape:
                size *= n
            total += size
        else:
            total += count(spec)
    return total


def _map(specs: Specs, function) -> dict:
    return {
        name: function(spec) if isinstance(spec, Parameter) else _map(spec, function)
        for name, spec in specs.items()
    }


def normal(stddev: float) -> Initializer:
    """Normal initialiser with a plain standard deviation."""
    return nn.initializers.normal(stddev)


def fan_in(number_of_inputs: int) -> Initializer:
    """Normal initialiser with variance 1 / `number_of_inputs`."""
    return nn.initializers.normal(number_of_inputs**-0.5)


zeros = nn.initializers.zeros_init()
ones = nn.initializers.ones_init()
