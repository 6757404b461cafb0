"""The kernels' bench: its cases fit what they time, on every kind of device, and a row is whole.

In: the cases of a CPU, a GPU and a TPU; nothing of the last two is computed. Out: every way of a
case gives an array like its input, and counts fit the arguments; a small case is really timed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from experiments.bench import kernel_cases, kernels


def abstract(case):
    return jax.eval_shape(case.make)


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_cases_are_whole(backend):
    found = kernel_cases.cases(backend)
    assert {each.kernel for each in found} == {"microturn_attention", "experts", "flow head"}
    for case in found:
        arguments, _ = abstract(case)
        assert case.live in case.ways and "reference" in case.ways
        drawn = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arguments))
        assert 0.25 * drawn < case.working_set <= drawn  # of 256 experts 16 rows touch some 80
        assert case.count.bytes > 0 and case.count.flops > 0
    if backend == "cpu":  # every kernel also with data that a cache of 32 MiB does not hold
        beyond = {c.kernel for c in found if c.working_set > 32 * kernels.MEBIBYTE}
        assert beyond == {"microturn_attention", "experts", "flow head"}
        return
    for case in found:  # one layer's worth of the announced model, in its own numbers
        weights = jax.tree.leaves(abstract(case)[0])
        assert max(weights, key=lambda leaf: leaf.size).dtype == jnp.bfloat16


def test_an_unknown_backend_is_told():
    with pytest.raises(ValueError, match="backend='abacus' is not one of"):
        kernel_cases.cases("abacus")


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_kernels_of_accelerators_take_the_arguments_of_their_cases(backend):
    """Traced, not run: the smallest case of each kernel."""
    smallest: dict = {}
    for case in kernel_cases.cases(backend):
        known = smallest.setdefault(case.kernel, case)
        smallest[case.kernel] = min(known, case, key=lambda each: each.working_set)
    for case in smallest.values():
        arguments, x = abstract(case)
        for name, way in case.ways.items():
            out = jax.eval_shape(way, arguments, x, jnp.int32(0))
            assert (out.shape, out.dtype) == (x.shape, x.dtype), (case.kernel, name)


def test_a_row_is_measured_and_its_ways_agree(monkeypatch):
    monkeypatch.setitem(kernels.PROGRAM_SECONDS, "cpu", 1e-4)
    small = (
        kernel_cases._flow(kernel_cases._FlowSizes(16, 2, 6, 10, 3), 2, jnp.float32,
                           (kernel_cases.Implementation.REFERENCE,)),
        kernel_cases._cpu_attention()[0],
        kernel_cases._cpu_experts()[1],
    )  # fmt: skip
    for case in small:
        row = kernels.row(case, "cpu", 5e10, 2)
        assert row["largest_difference"] < 2e-4, case.kernel
        assert row["read_from"] == "cache" and row["milliseconds"].keys() == case.ways.keys()
        limit = max(case.count.bytes / row["bandwidth_GB_s"] / 1e6, 1e3 * case.count.flops / 5e10)
        assert row["limit_ms"] == pytest.approx(limit, rel=0.02, abs=1e-5)
        for name, milliseconds in row["milliseconds"].items():
            assert row["share_of_limit"][name] == pytest.approx(
                row["limit_ms"] / milliseconds, rel=0.05, abs=1e-3
            )
    # A way that computes something else is seen.
    case = small[2]
    broken = {**case.ways, "touched": lambda a, x, i: 1.01 * case.ways["touched"](a, x, i)}
    row = kernels.row(dataclasses.replace(case, ways=broken), "cpu", 5e10, 2)
    assert row["largest_difference"] > 1e-3


def test_a_single_row_goes_round_all_experts():
    turns = kernel_cases._choices(1, 32, 4, 8)
    assert turns.shape == (8, 1, 4)
    assert sorted(turns.ravel()) == list(range(32))
    drawn = kernel_cases._choices(5, 6, 3, 2).reshape(-1, 3)
    assert [len(set(row)) for row in drawn] == [3] * 10
