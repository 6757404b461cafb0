"""Experts on few rows: every implementation against numpy, over one table of cases.

In: random rows, choices (some rows absent, some experts untouched) and matrices. Out: every
implementation, Pallas kernels interpreted, equals a loop over rows in float64.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels import experts, experts_plan
from interaction.kernels.implementation import CHIPS, Implementation
from tests.kernels_for_tests import interpreted, needs_gpu, races_found


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes of one call; `absent` rows at the end chose nothing."""

    name: str
    rows: int = 5
    width: int = 64
    inner: int = 32
    experts: int = 7
    per_row: int = 2
    layers: int | None = None
    absent: int = 0
    dtype: str = "float32"


CASES = (
    Case("some_untouched", rows=3, absent=1),
    Case("stacked_layers", layers=3, rows=9),
    Case("one_expert_each", per_row=1, rows=11, experts=3),
    Case("several_tiles", rows=40, experts=4, per_row=3),
    Case("nobody", rows=2, absent=2),
    Case("bfloat16", dtype="bfloat16", rows=6),
)
SMALL = {
    Implementation.PALLAS_TPU: experts.ExpertBlocks(inner=16),
    Implementation.PALLAS_GPU: experts.ExpertBlocks(inner=16, outer=32, rows=16),
    Implementation.BLOCKS: experts.ExpertBlocks(rows=4),
    Implementation.GROUPED: experts.ExpertBlocks(inner=32, outer=32, rows=16),
}


def drawn(case: Case, seed: int = 0) -> dict:
    """Random arguments; rows draw distinct experts and never the last but one."""
    rng = np.random.default_rng(seed)
    M, D, F, E = case.rows, case.width, case.inner, case.experts
    stack = () if case.layers is None else (case.layers,)
    some = np.delete(np.arange(E), E - 2) if case.per_row + 1 < E else np.arange(E)
    chosen = np.stack([rng.permutation(some)[: case.per_row] for _ in range(M)])
    chosen[M - case.absent :] = -1
    dtype = jnp.dtype(case.dtype)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    weights = rng.normal(size=(M, case.per_row))
    weights[M - case.absent :] = np.nan  # what stands there must not matter
    return {
        "x_MD": normal(M, D),
        "chosen_MA": jnp.asarray(chosen, jnp.int32),
        "weights_MA": jnp.asarray(weights, jnp.float32),
        "gate": normal(*stack, E, D, F) * D**-0.5,
        "up": normal(*stack, E, D, F) * D**-0.5,
        "down": normal(*stack, E, F, D) * F**-0.5,
        "layer": None if case.layers is None else jnp.int32(case.layers - 1),
    }


def by_loop(a: dict) -> np.ndarray:
    """The definition, one row and choice at a time, in float64."""
    f = lambda x: np.asarray(x, np.float64)
    x, gate, up, down = (f(a[name]) for name in ("x_MD", "gate", "up", "down"))
    if a["layer"] is not None:
        gate, up, down = (matrix[int(a["layer"])] for matrix in (gate, up, down))
    out = np.zeros(x.shape)
    for m, c in np.ndindex(a["chosen_MA"].shape):
        e = int(a["chosen_MA"][m, c])
        if e >= 0:
            g = x[m] @ gate[e]
            out[m] += (
                float(a["weights_MA"][m, c]) * (g / (1 + np.exp(-g)) * (x[m] @ up[e])) @ down[e]
            )
    return out


def compiled(implementation: Implementation):
    """A program for every shape of the arguments, made where it is called first."""
    blocks = SMALL.get(implementation)
    return jax.jit(lambda a: experts.mix(**a, implementation=implementation, blocks=blocks))


def compute(arguments: dict, implementation: Implementation) -> np.ndarray:
    with interpreted(implementation):
        return np.asarray(compiled(implementation)(arguments), np.float64)


def pairs_of_runs():
    """Every implementation on every case; megablox, long to interpret, on one by default."""
    for case in CASES:
        for each in experts.KNOWN:
            long = each is Implementation.GROUPED and case.name != "stacked_layers"
            marks = pytest.mark.slow if long else ()
            yield pytest.param(case, each, id=f"{case.name}-{each.name}", marks=marks)


@pytest.mark.parametrize(("case", "implementation"), list(pairs_of_runs()))
def test_equals_a_loop(case, implementation):
    arguments = drawn(case)
    got = compute(arguments, implementation)
    atol = 4e-2 if case.dtype == "bfloat16" else 1e-4
    np.testing.assert_allclose(got, by_loop(arguments), atol=atol)


FIVE = Case("five", rows=5, experts=7)
TPU = Implementation.PALLAS_TPU


def test_broken_lists_of_experts_are_noticed(monkeypatch):
    """One expert too few, one counted twice, one that nobody chose in another's place."""
    arguments = drawn(FIVE)
    want = by_loop(arguments)
    good = experts_plan.touched(arguments["chosen_MA"], FIVE.experts)
    n = int(good.count)
    broken = {
        "one too few": dataclasses.replace(good, count=good.count - 1),
        "one twice": dataclasses.replace(good, ids=good.ids.at[n - 1].set(good.ids[0])),
        "an untouched one": dataclasses.replace(good, ids=good.ids.at[0].set(FIVE.experts - 2)),
    }

    def mix(arguments, found, implementation):
        with monkeypatch.context() as patch:
            patch.setattr(experts_plan, "touched", lambda *_: found)
            return compiled(implementation)(arguments)

    # The list is data, so that one program of each implementation serves every variant.
    run = jax.jit(mix, static_argnames="implementation")
    for implementation in (Implementation.TOUCHED, TPU):
        with interpreted(implementation):
            np.testing.assert_allclose(run(arguments, good, implementation), want, atol=1e-4)
            for name, found in broken.items():
                wrong = np.asarray(run(arguments, found, implementation), np.float64)
                assert np.abs(wrong - want).max() > 1e-2, (implementation, name)


def test_no_race_between_transfers_and_use():
    arguments = drawn(dataclasses.replace(FIVE, rows=2))
    with interpreted(TPU, detect_races=True):
        jax.block_until_ready(compiled(TPU)(arguments))
    assert not races_found()


def test_touched_experts_are_listed_once_and_the_tail_repeats_the_last():
    chosen = jnp.asarray([[4, 1], [-1, -1], [4, 6]], jnp.int32)
    found = experts_plan.touched(chosen, 9)
    assert int(found.count) == 3
    assert found.ids.tolist() == [1, 4, 6, 6, 6, 6]
    nobody = experts_plan.touched(jnp.full((2, 3), -1, jnp.int32), 4)
    assert int(nobody.count) == 1
    assert set(nobody.ids.tolist()) == {0}


@pytest.mark.parametrize(
    ("pairs", "number", "rows"), [(40, 7, 4), (3, 50, 8), (64, 1, 16), (17, 5, 1)]
)
def test_row_tiles_hold_every_pair_once(pairs, number, rows):
    rng = np.random.default_rng(pairs)
    chosen = rng.integers(-1, number, size=(pairs, 1))
    tiles = experts_plan.row_tiles(jnp.asarray(chosen, jnp.int32), number, rows)
    used, most = int(tiles.count), experts_plan.most_tiles(pairs, number, rows)
    assert tiles.pair.shape == (most, rows)
    seen = []
    for tile, expert in zip(np.asarray(tiles.pair)[:used], tiles.expert.tolist(), strict=False):
        mine = tile[tile < pairs]
        assert (chosen[mine, 0] == expert).all()
        seen += mine.tolist()
    assert sorted(seen) == np.flatnonzero(chosen[:, 0] >= 0).tolist()
    flat = np.append(np.asarray(tiles.pair).ravel(), pairs)
    for pair in seen:
        assert flat[int(tiles.slot[pair])] == pair
    need = sum(-(-int(size) // rows) for size in np.bincount(chosen[chosen >= 0], minlength=number))
    assert max(need, 1) == used <= most


def test_choice_depends_on_static_sizes_alone():
    """Few rows stream experts, many are sorted; the TPU's border is the least roofline's."""
    for chip, border in experts.GROUPED_ABOVE.items():
        assert border == int(CHIPS[chip].flops_per_second / CHIPS[chip].bytes_per_second)
    least = min(experts.GROUPED_ABOVE.values())
    assert experts.choose(TPU, least, 256, 6) is TPU
    assert experts.choose(TPU, least + 1, 256, 6) is Implementation.GROUPED
    gpu, cpu = Implementation.PALLAS_GPU, Implementation.REFERENCE
    assert experts.choose(gpu, 5000, 256, 6) is gpu
    assert experts.choose(cpu, 7, 16, 4) is Implementation.TOUCHED
    assert experts.choose(cpu, 8, 16, 4) is Implementation.BLOCKS
    assert experts.choose(cpu, 8, 15, 4) is Implementation.TOUCHED


@pytest.mark.parametrize("implementation", [Implementation.TOUCHED, Implementation.BLOCKS])
def test_a_row_does_not_depend_on_the_others_to_the_bit(implementation):
    """Other rows empty, busy, or in other places: lanes must not see each other."""
    case = Case("lanes", rows=12, experts=16, per_row=4)
    arguments = drawn(case)
    run = jax.jit(lambda a: experts.mix(**a, implementation=implementation))
    busy = np.asarray(run(arguments))
    alone = dict(arguments)
    alone["chosen_MA"] = jnp.where(jnp.arange(12)[:, None] < 3, arguments["chosen_MA"], -1)
    np.testing.assert_array_equal(np.asarray(run(alone))[:3], busy[:3])
    turned = dict(arguments)
    for name in ("x_MD", "chosen_MA", "weights_MA"):
        turned[name] = jnp.roll(arguments[name], 5, axis=0)
    np.testing.assert_array_equal(np.asarray(run(turned)), np.roll(busy, 5, axis=0))


def test_at_the_border_reading_takes_as_long_as_computing():
    """The formula of `GROUPED_ABOVE` against the count of a call."""
    for chip, border in experts.GROUPED_ABOVE.items():
        one = experts.count(rows=0, width=4096, inner=2048, reached=200, computed=border, item=2)
        reading = one.bytes / CHIPS[chip].bytes_per_second
        computing = one.flops / CHIPS[chip].flops_per_second
        assert abs(computing / reading - 1) < 0.01


def test_expected_touched_is_the_mean_of_draws():
    rng = np.random.default_rng(0)
    draws = [
        len(np.unique(np.concatenate([rng.permutation(32)[:4] for _ in range(9)])))
        for _ in range(300)
    ]
    assert abs(np.mean(draws) - experts.expected_touched(9, 32, 4)) < 0.5


def test_errors_name_the_shapes():
    arguments = drawn(FIVE)
    with pytest.raises(ValueError, match="3 axes with layer=0"):
        experts.mix(**{**arguments, "layer": 0}, implementation=TPU)
    with pytest.raises(ValueError, match="inner=24 does not divide F=32"):
        experts.mix(**arguments, implementation=TPU, blocks=experts.ExpertBlocks(inner=24))
    with pytest.raises(ValueError, match=r"down \(7, 64, 32\) do not fit"):
        experts.mix(**{**arguments, "down": arguments["gate"]}, implementation=TPU)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_on_a_gpu(case):
    """The Triton kernels themselves."""
    needs_gpu()
    arguments = drawn(case)
    blocks = experts.ExpertBlocks(inner=32, outer=64, rows=16)
    got = experts.mix(**arguments, implementation=Implementation.PALLAS_GPU, blocks=blocks)
    atol = 4e-2 if case.dtype == "bfloat16" else 1e-3
    np.testing.assert_allclose(np.asarray(got, np.float64), by_loop(arguments), atol=atol)
