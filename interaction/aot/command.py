"""``launch.py aot``: compile the real steps for a slice that is not there, and say what they take.

In: a configuration and `Asked`. Out: a `Report` of each step asked for, as text or JSON. What the
compiler says of memory, kernels and collectives is the compiler's; operations, bytes and times are
computed by `aot.tally` from the configuration, and never measured.
"""

import dataclasses
import enum
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from interaction import configuration, sharding
from interaction.aot import choose, compiled, programs, tally
from interaction.aot.hardware import GIB, Slice
from interaction.microturn import MICRO_TURN_SECONDS
from interaction.models import expert_parallel
from interaction.models.config import InteractionConfig, Recompute
from interaction.models.expert_parallel import Travel
from interaction.session.lanes import Bucket, buckets
from interaction.sharding import MeshConfig
from interaction.train.loop import Compute, TrainConfig


class Step(enum.Enum):
    """What is compiled."""

    SERVE = "serve"
    TRAIN = "train"


class Input(enum.Enum):
    """Which of `session.lanes.buckets` a micro-turn brings: sound, sound and video, or all."""

    SOUND = "sound"
    VIDEO = "video"
    ALL = "all"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command was asked.

    Attributes:
        topology: name of a slice (`hardware.Slice.parse`).
        mesh: its axes; None: the one with the least computed time that fits (`aot.choose`).
        sessions: SERVE: at once.
        context: SERVE: slots that a global layer holds; None: the configuration's.
        input: SERVE: what a micro-turn brings.
        rows: TRAIN: conversations of a step; None: one for each device that shares them, in each
            part of the batch (`TrainConfig.accumulate`).
        conversation: TRAIN: their static sizes.
        capacity_factor: TRAIN: where experts are split (`TrainConfig`); None: room for all.
        dump: file for the optimised program's text; None: it is not kept.
    """

    topology: str
    mesh: MeshConfig | None = None
    sessions: int = 1
    context: int | None = None
    input: Input = Input.SOUND
    rows: int | None = None
    conversation: programs.Conversation = programs.Conversation()
    capacity_factor: float | None = 1.25
    dump: str | None = None

    def __post_init__(self):
        if self.sessions < 1:
            raise ValueError(f"sessions={self.sessions} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Report:
    """What is known of one step on one slice.

    Attributes:
        step, topology, chips, mesh, lanes: what was compiled; lanes are conversations in training.
        slots: of an input part, or of a conversation.
        context: slots of a global layer's store; of a conversation in training.
        weights, state: bytes on one device; training's parameters are in its state.
        received: bytes of one device's receive buffer of slots for its experts (0: none are
            split); where nothing may be dropped, that of the worst case.
        compiled: what the compiler says.
        phases: what one device has to do (computed).
        seconds: the least time of the step (computed, not measured).
    """

    step: Step
    topology: str
    chips: int
    mesh: MeshConfig
    lanes: int
    slots: int
    context: int
    weights: int
    state: int
    received: int
    compiled: compiled.Compiled
    phases: tuple[tally.Phase, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return configuration.to_dict(self)


def parse_mesh(text: str) -> MeshConfig:
    """``expert=16,tensor=4`` as a mesh.

    Raises:
        ValueError: no axis of that name, or no number.
    """
    sizes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in sharding.AXES or not size.isdecimal():
            raise ValueError(f"mesh={text!r}: {part!r} is not AXIS=NUMBER, {sharding.AXES}")
        sizes[name] = int(size)
    return MeshConfig(**sizes)


def serve(asked: Asked, values: Mapping[str, Any]) -> Report:
    """Compile the micro-turn step of the model in `values`.

    Raises:
        ValueError: what was asked does not fit together, or no mesh holds it.
    """
    where = Slice.parse(asked.topology)
    model = dict(values["model"])
    if asked.context is not None:
        model["global_slots"] = asked.context
    config = configuration.build(InteractionConfig, model, where="model")
    config = programs.with_kernels(config, where.known.platform)
    bucket = buckets(config)[list(Input).index(asked.input)]
    work = serving_work(config, asked.sessions, bucket)
    if asked.mesh is None:
        found = choose.for_serving(where, config, work)
        if not found:
            raise ValueError(
                f"topology={where.name}: under no mesh do weights and state of "
                f"sessions={asked.sessions} take less than {choose.SERVING_SHARE:.0%} of "
                f"{where.known.memory / GIB:.1f} GiB"
            )
        choice = found[0]
    else:
        choice = choose.weigh_serving(where, config, asked.mesh, work)
    mesh = sharding.make_mesh(choice.mesh, where.devices())
    program = programs.serving(config, choice.lanes, bucket, choice.mesh, mesh)
    made = compiled.compile_program(program, where, asked.dump)
    return Report(
        Step.SERVE, where.name, where.chips, choice.mesh, choice.lanes, bucket.slots,
        config.global_slots, program.weights, program.state,
        received(config, choice.mesh, Travel.SLOTS, choice.lanes * bucket.slots, item=2),
        made, choice.phases, choice.seconds,
    )  # fmt: skip


def received(
    config: InteractionConfig,
    mesh: MeshConfig,
    travel: Travel,
    slots: int,
    *,
    item: int,
    capacity_factor: float | None = None,
) -> int:
    """Bytes of one device's receive buffer (`models.expert_parallel`) for `slots` of all."""
    stack = config.transformer
    if mesh.expert == 1:
        return 0
    rows = expert_parallel.receive_rows(
        travel, slots=-(-slots // mesh.batch_shards), per_slot=stack.experts_per_slot,
        experts=stack.experts, group=mesh.expert, capacity_factor=capacity_factor,
    )  # fmt: skip
    return rows * stack.width * item


def serving_work(config: InteractionConfig, sessions: int, bucket: Bucket) -> tally.Serving:
    """The worst micro-turn of `sessions`: full memory, as many ids as may be, own speech."""
    return tally.Serving(
        sessions=sessions,
        slots=bucket.slots,
        patches=bucket.patches,
        tokens=config.max_text_out,
        context=config.global_slots,
    )


def train(asked: Asked, values: Mapping[str, Any]) -> Report:
    """Compile the training step of the run in `values`.

    Raises:
        ValueError: what was asked does not fit together, or no mesh holds it.
    """
    where = Slice.parse(asked.topology)
    config = configuration.build(TrainConfig, dict(values))
    work = training_work(config, asked.conversation)
    if asked.mesh is None:
        found = choose.for_training(where, config, work)
        if not found:
            raise ValueError(
                f"topology={where.name}: under no mesh does the state of training take less than "
                f"{choose.TRAINING_SHARE:.0%} of {where.known.memory / GIB:.1f} GiB"
            )
        layout = found[0].mesh
    else:
        layout = asked.mesh
    config = choose.with_mesh(config, layout, asked.rows)
    choice = choose.weigh_training(where, config, work)
    if layout.expert > 1:
        config = dataclasses.replace(config, capacity_factor=asked.capacity_factor)
    mesh = sharding.make_mesh(layout, where.devices())
    program = programs.training(config, asked.conversation, mesh)
    made = compiled.compile_program(program, where, asked.dump)
    slots = asked.conversation.slots
    return Report(
        Step.TRAIN, where.name, where.chips, layout, config.batch, slots, slots, 0, program.state,
        received(
            config.model, layout, Travel.PAIRS,
            config.batch // config.accumulate * slots // layout.sequence, item=work.item,
            capacity_factor=config.capacity_factor,
        ),
        made, choice.phases, choice.seconds,
    )  # fmt: skip


def training_work(config: TrainConfig, size: programs.Conversation) -> tally.Training:
    """What a step over conversations of that size does; its rows are the mesh's."""
    return tally.Training(
        rows=config.batch,
        slots=size.slots,
        chunks=size.micro_turns,
        flow_draws=config.loss.flow_draws,
        recomputed=config.model.transformer.recompute is Recompute.LAYERS,
        item=2 if config.compute is Compute.BFLOAT16 else 4,
        parts=config.accumulate,
    )


def run(values: Mapping[str, Any], options: Any) -> int:
    """``launch.py aot`` with its options; the exit status, 1 where a step does not fit."""
    asked = Asked(
        topology=options.topology,
        mesh=parse_mesh(options.mesh) if options.mesh else None,
        sessions=options.sessions,
        context=options.context,
        input=Input(options.input),
        rows=options.rows,
        conversation=programs.Conversation.of_slots(options.slots),
        capacity_factor=options.capacity_factor or None,
        dump=options.dump,
    )
    steps = list(Step) if options.step == "both" else [Step(options.step)]
    reports = []
    for step in steps:
        reports.append(serve(asked, values) if step is Step.SERVE else train(asked, values))
        print(text(reports[-1]), flush=True)
    if options.json:
        found = [report.to_dict() for report in reports]
        pathlib.Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(report.compiled.fits for report in reports) else 1


# ------------------------------------------------------------------------------ as text


def text(report: Report) -> str:
    """A report to read."""
    axes = " ".join(f"{n}={s}" for n, s in sharding.sizes(report.mesh).items() if s > 1) or "one"
    unit = "lanes" if report.step is Step.SERVE else "conversations"
    lines = [
        f"{report.step.value} on {report.topology}: {report.chips} chips, mesh {axes}, "
        f"{report.lanes} {unit}, {report.slots} slots, memory of {report.context} slots",
    ]
    made = report.compiled
    lines += _memory_lines(report, made)
    lines.append("computed for one device (lower bounds, nothing was measured on a device):")
    lines.append("  phase        runs      GFLOP    GB read    MB sent    ms each")
    where = Slice.parse(report.topology)
    for phase in report.phases:
        one = phase.tally
        lines.append(
            f"  {phase.name:<11}{phase.times:>6}{one.flops / 1e9:>11.1f}{one.bytes / 1e9:>11.2f}"
            f"{one.sent / 1e6:>11.1f}{one.seconds(where) * 1e3:>11.2f}"
        )
    if made.collectives:
        lines.append("collectives of one device (read from the program, loops multiplied out):")
        for one in made.collectives:
            lines.append(
                f"  {one.kind:<19}{one.axes:<20}{one.number:>8} times, {one.sent / 1e6:>10.1f} MB "
                f"sent at most, largest {one.largest / 1e6:.2f} MB"
            )
    bound = f"least time of the step: {report.seconds * 1e3:.1f} ms (computed)"
    if report.step is Step.SERVE:
        share = report.seconds / MICRO_TURN_SECONDS
        bound += f", {share:.0%} of a micro-turn"
    else:
        bound += f", {report.lanes * report.slots} slots a step"
    lines.append(bound)
    return "\n".join(lines)


def _memory_lines(report: Report, made: compiled.Compiled) -> list[str]:
    held = f"weights {report.weights / GIB:.2f}, state {report.state / GIB:.2f}"
    if made.memory is None:
        return [f"memory of one device, GiB: {held}", f"DOES NOT FIT: {made.why_not}"]
    memory = made.memory
    fits = "fits" if made.fits else f"DOES NOT FIT: {made.why_not}"
    return [
        f"memory of one device, GiB: {held}; arguments {memory.arguments / GIB:.2f}, of them "
        f"written in place {memory.aliased / GIB:.2f}, temporary {memory.temporary / GIB:.2f}, "
        f"code {memory.code / GIB:.2f}: {memory.used / GIB:.2f} of {memory.there / GIB:.2f}, "
        f"{fits}",
        f"compiled in {made.seconds:.0f} s, {made.kernels} kernel calls in the program; slots come "
        f"to their experts in a buffer of {report.received / 2**20:.1f} MiB",
    ]
