"""Which slice serves or trains the announced size? Computed for all, compiled for a few.

    python -m experiments.slices                   # counts: a few minutes, no compiler
    python -m experiments.slices --compile NAME    # compile one of COMPILED (needs libtpu or CUDA)
    python -m experiments.slices --compile all     # those that are not in the JSON yet

Question: what is the smallest slice of each family that serves 1, 64 and 512 sessions within a
micro-turn of 200 ms, at memories of 8k, 32k and 128k slots, and how many chip-hours does training
cost per billion slots? Cost: one core; a compile takes one to a few minutes of it and 2 GiB, that
of training on v6e:16x16 half an hour and 6 GiB. Expect `docs/slices.json`, `docs/slices.md`; both
are written again after every compile, so a run that was stopped goes on where it was. Nothing here
was measured on an accelerator: times are lower bounds from published peaks
(`interaction/aot/tally.py`), memory of compiled rows is the compiler's.
"""

import argparse
import dataclasses
import json
import pathlib

from configs import tml_interaction_small
from interaction import configuration
from interaction.aot import choose, command, programs, tally
from interaction.aot.hardware import FAMILIES, GIB, Slice
from interaction.microturn import MICRO_TURN_SECONDS
from interaction.models.config import InteractionConfig
from interaction.session.lanes import buckets
from interaction.sharding import AXES
from interaction.train.loop import TrainConfig

ROOT = pathlib.Path(__file__).parents[1]
TABLE, PAGE = ROOT / "docs" / "slices.json", ROOT / "docs" / "slices.md"
SESSIONS, CONTEXTS, TOKENS = (1, 64, 512), (8_192, 32_768, 131_072), (4, 16)
SLICES = {
    "v5e": ("4x8", "8x8", "8x16", "16x16"),
    "v6e": ("4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8"),
    "tpu7x": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
    "h200": ("8", "2x8", "4x8", "8x8"),
}
TRAINING = {
    "v6e": ("16x16",), "v5p": ("4x4x8", "4x8x8", "8x8x8"), "tpu7x": ("4x4x4", "4x4x8", "4x8x8"),
    "h200": ("8x8", "16x8", "32x8"),
}  # fmt: skip
# Slots of a conversation: 4096 are 100 s at 8 slots a micro-turn.
SLOTS = 4096
# Name to arguments of `launch.py aot`: what was compiled.
COMPILED = {
    "serve v6e:4x8, 64 sessions, 32k": ("serve", "v6e:4x8", {"sessions": 64, "context": 32_768}),
    "serve v6e:4x4, 64 sessions, 32k": ("serve", "v6e:4x4", {"sessions": 64, "context": 32_768}),
    "serve v6e:8x8, 512 sessions, 32k": ("serve", "v6e:8x8", {"sessions": 512, "context": 32_768}),
    "serve v5p:2x2x4, 64 sessions, 32k": ("serve", "v5p:2x2x4",
                                          {"sessions": 64, "context": 32_768}),
    "serve tpu7x:2x2x2, 64 sessions, 32k": ("serve", "tpu7x:2x2x2",
                                            {"sessions": 64, "context": 32_768}),
    "serve h200:8, 64 sessions, 32k": ("serve", "h200:8", {"sessions": 64, "context": 32_768}),
    "train v5p:4x8x8": ("train", "v5p:4x8x8", {}),
    "train v6e:16x16": ("train", "v6e:16x16", {}),
}  # fmt: skip


def model(context: int) -> dict:
    """The configuration's model with a memory of `context` slots."""
    return dict(run_of_training()["model"], global_slots=context)


def run_of_training() -> dict:
    """A training run of it."""
    return tml_interaction_small.get_config().to_dict()


def axes(mesh) -> str:
    """``expert=4 tensor=8``."""
    return " ".join(f"{n}={getattr(mesh, n)}" for n in AXES if getattr(mesh, n) > 1) or "one"


def serving_rows() -> list[dict]:
    """The best mesh of every slice, load and memory, by the count."""
    rows = []
    for context in CONTEXTS:
        config = configuration.build(InteractionConfig, model(context))
        for family, shapes in SLICES.items():
            for shape in shapes:
                where = Slice.parse(f"{family}:{shape}")
                for sessions in SESSIONS:
                    rows += serving_row(config, where, sessions, context)
                print(where.name, context, flush=True)
    return rows


def serving_row(config, where: Slice, sessions: int, context: int) -> list[dict]:
    """One row for each number of ids that a micro-turn puts out; none where nothing fits."""
    bucket, rows = buckets(config)[0], []
    for tokens in TOKENS:
        work = dataclasses.replace(command.serving_work(config, sessions, bucket), tokens=tokens)
        found = choose.for_serving(where, config, work)
        if found:
            best = found[0]
            rows.append({
                "slice": where.name, "chips": where.chips, "sessions": sessions,
                "context": context, "tokens": tokens, "mesh": axes(best.mesh),
                "lanes": best.lanes, "held_gib": round(best.held / GIB, 2),
                "ms": round(best.seconds * 1e3, 2),
            })  # fmt: skip
    return rows


def training_rows() -> list[dict]:
    """The best mesh of every slice for training."""
    config = configuration.build(TrainConfig, run_of_training())
    size, rows = programs.Conversation.of_slots(SLOTS), []
    for family, shapes in TRAINING.items():
        for shape in shapes:
            where = Slice.parse(f"{family}:{shape}")
            found = choose.for_training(where, config, command.training_work(config, size))
            if not found:
                rows.append({"slice": where.name, "chips": where.chips, "mesh": None})
                continue
            best = found[0]
            done = tally.total(best.phases)
            slots = best.lanes * SLOTS
            rows.append({
                "slice": where.name, "chips": where.chips, "mesh": axes(best.mesh),
                "slots_a_step": slots, "held_gib": round(best.held / GIB, 2),
                "seconds": round(best.seconds, 3),
                "products": round(done.flops / where.chip.flops_per_second, 3),
                "links": round(done.sent / where.known.link, 3),
                "chip_hours_per_billion": round(
                    best.seconds * where.chips / 3600 * 1e9 / slots, 1
                ),
            })  # fmt: skip
            print("training", where.name, flush=True)
    return rows


def compile_one(name: str) -> dict:
    """What the compiler says of one of `COMPILED`."""
    step, topology, options = COMPILED[name]
    if step == "serve":
        report = command.serve(command.Asked(topology, **options), {"model": model(8_192)})
    else:
        size = programs.Conversation.of_slots(options.get("slots", SLOTS))
        asked = command.Asked(topology, conversation=size, mesh=options.get("mesh"))
        report = command.train(asked, run_of_training())
    print(command.text(report), flush=True)
    return report.to_dict()


# ------------------------------------------------------------------------------ the page


def smallest(rows: list[dict], sessions: int, context: int, tokens: int, limit: float) -> dict:
    """For every family the row with the fewest chips within `limit` ms."""
    found = {}
    for row in rows:
        family = row["slice"].partition(":")[0]
        here = (row["sessions"], row["context"], row["tokens"]) == (sessions, context, tokens)
        if here and row["ms"] <= limit:
            best = found.get(family)
            if best is None or (row["chips"], row["ms"]) < (best["chips"], best["ms"]):
                found[family] = row
    return found


def page(table: dict) -> str:
    """docs/slices.md."""
    text = [HEAD]
    text += ["\n## Compiled\n", COMPILED_HEAD]
    text += [_compiled_line(name, found) for name, found in table["compiled"].items()]
    if not table["compiled"]:
        text[-1] = NOTHING_COMPILED
    text += ["\n## The smallest slice\n", SMALLEST_HEAD]
    for sessions in SESSIONS:
        for context in CONTEXTS:
            for tokens in TOKENS:
                limit = MICRO_TURN_SECONDS * 1e3
                whole = smallest(table["serving"], sessions, context, tokens, limit)
                half = smallest(table["serving"], sessions, context, tokens, limit / 2)
                cells = [_cell(whole.get(f), half.get(f)) for f in SLICES]
                text.append(f"| {sessions} | {context} | {tokens} | " + " | ".join(cells) + " |")
    text += ["\n## Training\n", TRAINING_HEAD]
    for row in table["training"]:
        if row["mesh"] is None:
            text.append(f"| {row['slice']} | {row['chips']} | state does not fit | | | | | |")
            continue
        text.append(
            f"| {row['slice']} | {row['chips']} | {row['mesh']} | {row['held_gib']} | "
            f"{row['slots_a_step']} | {row['seconds']} | {row['products']} / {row['links']} | "
            f"{row['chip_hours_per_billion']} |"
        )
    text += ["\n## Published figures\n", "| device | HBM | links, one way | source |",
             "|---|---|---|---|"]  # fmt: skip
    text += [
        f"| {name} | {f.memory / GIB:.0f} GiB | {f.link / 1e9:.0f} GB/s | {f.source} |"
        for name, f in FAMILIES.items()
    ]
    return "\n".join(text) + "\n"


def _cell(whole: dict | None, half: dict | None) -> str:
    if whole is None:
        return "none of these"
    cell = f"{whole['slice'].partition(':')[2]}: {whole['ms']:.0f} ms"
    if half is None:
        return cell
    if half["slice"] != whole["slice"]:
        cell += f" ({half['slice'].partition(':')[2]}: {half['ms']:.0f})"
    return cell


def _compiled_line(name: str, found: dict) -> str:
    made, mesh = found["compiled"], found["mesh"]
    shown = " ".join(f"{n}={mesh[n]}" for n in AXES if mesh[n] > 1) or "one"
    memory = made["memory"]
    if memory is None:
        return f"| {name} | {shown} | | | | | {made['why_not'][:120]} | |"
    used = memory["arguments"] + memory["outputs"] - memory["aliased"]
    used += memory["temporary"] + memory["code"]
    numbers = (memory["arguments"], memory["aliased"], memory["temporary"], used)
    cells = " | ".join(f"{n / GIB:.2f}" for n in numbers)
    fits = "fits" if made["fits"] else f"no: {made['why_not']}"
    return (
        f"| {name} | {shown} | {cells} | {fits}; {made['kernels']} kernels | "
        f"{found['seconds'] * 1e3:.0f} |"
    )


HEAD = """# Slices

Which slice of TPUs or GPUs the announced size (`configs/tml_interaction_small.py`, 276 B
parameters) needs: served in bfloat16, trained in bfloat16 from a float32 state. **No accelerator
was used for any number here.** Rows under *Compiled* are what the compiler of that chip says of the
real program, kernels included; all times are computed lower bounds: the least that one device has
to multiply, read and send (`interaction/aot/tally.py`), divided by published peaks. A real step
takes longer: activations, latency of collectives (a micro-turn with 16 ids has 18 passes through 42
layers), and peaks that nothing reaches are not in it. Written by `experiments/slices.py`; all rows
are in `slices.json`. The description of an H200 that its compiler is given was made by hand
(`interaction/aot/h200_target.textproto`), and no program compiled so was loaded on one."""
NOTHING_COMPILED = (
    "No full-size program is in this table yet: `experiments/slices.py --compile all` puts them\n"
    "here, one after the other (some minutes of a core each)."
)
COMPILED_HEAD = """GiB of one device; the last column is the computed least time in ms.

| program | mesh | arguments | in place | temporary | all | verdict | ms |
|---|---|---|---|---|---|---|---|"""
SMALLEST_HEAD = (
    """Fewest chips whose computed time is within 200 ms, with that time, and in brackets, where it
is another one, the smallest within 100 ms: a factor of two for what the bound leaves out.
Every session has a full memory of that many slots in the global layers, hears sound, puts out so
many ids and speaks in the same micro-turn. Weights and state alone decide whether a row fits (at
most 92 % of HBM); the compiled rows above show what else a program needs.

| sessions | slots | ids | """
    + " | ".join(SLICES)
    + """ |
|---|---|---|"""
    + "---|" * len(SLICES)
)
TRAINING_HEAD = f"""One conversation of {SLOTS} slots on every device that shares a batch; layers, scores of attention
and logits computed again in the backward pass, in parts (`query_slots`, `text_slots` of the
configuration); AdamW and a running mean in float32 (16 bytes a parameter). Not in the state's share
are the bfloat16 copy and its gradient, 4 bytes a parameter; the compiled row has all. A batch in parts
(`accumulate`) keeps the activations of one part and adds the float32 sum of gradients, 4 bytes a
parameter. Experts take 1.25 times their mean number of pairs, what is more is dropped and counted. Chip-hours are per
billion slots at the computed least time; at a share u of it they are 1/u times as many: N billion
slots cost N times the last column.

| slice | chips | mesh | state, GiB a device | slots a step | least s a step | products / links, s | chip-hours per billion slots |
|---|---|---|---|---|---|---|---|"""  # noqa: E501


def main() -> None:
    """Write the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", metavar="NAME", help="one of COMPILED, or all")
    options = parser.parse_args()
    table = read()
    if options.compile:
        names = [options.compile] if options.compile != "all" else [
            name for name in COMPILED if name not in table["compiled"]
        ]  # fmt: skip
        for name in names:
            found = compile_one(name)
            table = read()  # another process may have counted meanwhile
            table["compiled"][name] = found
            write(table)
    else:
        table["training"] = training_rows()
        write(table)
        table["serving"] = serving_rows()
        write(table)


def read() -> dict:
    """The table as it is."""
    return json.loads(TABLE.read_text()) if TABLE.exists() else {"compiled": {}}


def write(table: dict) -> None:
    """Both files."""
    table.setdefault("serving", [])
    table.setdefault("training", [])
    table["compiled"] = {name: table["compiled"][name] for name in COMPILED
                         if name in table["compiled"]}  # fmt: skip
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    PAGE.write_text(page(table))


if __name__ == "__main__":
    main()
