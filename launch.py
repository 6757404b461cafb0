"""The one door: what a person or a cluster job calls.

In: a command and its options (``python launch.py COMMAND --help``). Out: whatever the command
makes. Nothing happens here but reading options and configuration files: each command imports the
part of the package that does the work. ConfigDict stops here; below are frozen dataclasses.

    python launch.py demo [--audio FILE] [--video FILE]
    python launch.py train --config configs/nano.py --workdir runs/nano [--set data.seed=3]
    python launch.py data build --from recordings/ --out shards/
    python launch.py import --from released/ --to native/
    python launch.py eval --suite all --system silent,oracle,model --checkpoint checkpoints/nano
    python launch.py serve --checkpoint checkpoints/mini --lanes 4 --port 8765
    python launch.py export --checkpoint checkpoints/nano --platform cpu --out artefacts/nano_cpu
    python launch.py export-hf --from native/ --to released/
    python launch.py submit --on slurm --nodes 2 -- train --config configs/smoke.py:2 ...
    python launch.py aot --topology v6e:8x8 --sessions 64 --context 32768
"""

import argparse
import dataclasses
import importlib
import importlib.util
import os
import pathlib
import sys
from typing import Any

from interaction.configuration import with_overrides

# Value of a configuration's `trainer` field (default: interaction) to the module with its `train`
# and the dataclass that the other fields are built into.
TRAINERS = {
    "interaction": ("interaction.train.loop", "TrainConfig"),
    "vocoder": ("interaction.train.vocoder", "VocoderTrainConfig"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, FileNotFoundError) as error:
        if options.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="play recordings through a checkpoint")
    demo.add_argument("--audio", help="recording to hear (default: the shipped digits)")
    demo.add_argument("--video", help="video to see (default: the shipped clip)")
    demo.add_argument("--checkpoint", help="native checkpoint (default: the shipped one)")
    demo.add_argument("--out", default="demo", help="folder for sound, picture and report")
    demo.add_argument(
        "--pace",
        choices=("real", "simulated"),
        default="real",
        help="real: one micro-turn every 200 ms; simulated: as fast as it goes",
    )
    demo.add_argument(
        "--compilation-cache", metavar="FOLDER", help="for compiled programs, or off (default: "
        "JAX_COMPILATION_CACHE_DIR, else the user's cache folder)",
    )  # fmt: skip
    demo.set_defaults(run=_demo)

    train = commands.add_parser("train", help="train what a configuration file describes")
    train.add_argument("--config", required=True, help="configs/NAME.py, or configs/NAME.py:ARG")
    train.add_argument("--workdir", required=True, help="folder for checkpoints and metrics")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="override one field; may be repeated",
    )
    train.set_defaults(run=_train)

    _data_options(commands)
    _eval_options(commands)
    _serve_options(commands)
    _submit_options(commands)

    export = commands.add_parser("export", help="checkpoint to programs that run without it")
    export.add_argument("--checkpoint", required=True, help="native checkpoint")
    export.add_argument("--platform", choices=("cpu", "cuda", "tpu"), required=True)
    export.add_argument("--lanes", type=int, default=1, help="sessions stepped in lockstep")
    export.add_argument(
        "--experts",
        choices=("float32", "int8"),
        default="float32",
        help="how expert weights are stored",
    )
    export.add_argument(
        "--cache",
        choices=("float32", "bfloat16"),
        help="what lanes keep keys and values as (default: as the configuration says)",
    )
    export.add_argument(
        "--kernels",
        default="xla",
        choices=("xla", "pallas"),
        help="who computes attention, experts and flow (pallas: cuda and tpu)",
    )
    export.add_argument("--out", required=True, help="folder to make")
    export.set_defaults(run=_export)

    _aot_options(commands)

    for name, run, text in (
        ("import", _import, "released safetensors checkpoint to a native one"),
        ("export-hf", _export_hf, "native checkpoint back to the released format"),
    ):
        convert = commands.add_parser(name, help=text)
        convert.add_argument("--from", dest="source", required=True, help="folder to read")
        convert.add_argument("--to", dest="target", required=True, help="folder to make")
        convert.set_defaults(run=run)
    return parser


def _data_options(commands: Any) -> None:
    from interaction.data.build.options import add_options

    data = commands.add_parser("data", help="make training data").add_subparsers(
        metavar="COMMAND", required=True
    )
    build = data.add_parser(
        "build", help="recordings, a curriculum or a TFDS name to shards",
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    add_options(build)
    build.set_defaults(run=_data_build)


def _eval_options(commands: Any) -> None:
    from interaction.eval.options import add_options

    evaluate = commands.add_parser(
        "eval", help="put benchmarks to systems", formatter_class=argparse.RawTextHelpFormatter
    )
    add_options(evaluate)
    evaluate.set_defaults(run=_eval)


def _serve_options(commands: Any) -> None:
    from interaction.serving.options import add_options

    serve = commands.add_parser("serve", help="answer sessions over WebSockets (docs/remote.md)")
    add_options(serve)
    serve.set_defaults(run=_serve)


def _submit_options(commands: Any) -> None:
    from interaction.launching.options import add_options

    submit = commands.add_parser(
        "submit", help="run a command of this file on a cluster, or on several processes here",
        description="Everything after -- is a command of launch.py with its options.",
    )  # fmt: skip
    add_options(submit, root=str(pathlib.Path(__file__).absolute().parent))
    submit.set_defaults(run=_submit)


def _aot_options(commands: Any) -> None:
    aot = commands.add_parser(
        "aot", help="compile the steps for a TPU or GPU slice that is not here; memory and bounds"
    )
    aot.add_argument("--topology", required=True, help="as v6e:8x8, v5p:4x4x4, h200:8, h200:4x8")
    aot.add_argument("--config", default="configs/tml_interaction_small.py", help="as of train")
    aot.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="as of train")
    aot.add_argument("--step", choices=("serve", "train", "both"), default="serve")
    aot.add_argument("--mesh", help="as expert=8,tensor=8 (default: the best computed)")
    aot.add_argument("--sessions", type=int, default=1, help="serve: at once")
    aot.add_argument("--context", type=int, help="serve: slots that a global layer holds")
    aot.add_argument(
        "--input", choices=("sound", "video", "all"), default="sound", help="serve: what comes in"
    )
    aot.add_argument("--rows", type=int, help="train: conversations a step")
    aot.add_argument("--slots", type=int, default=4096, help="train: slots of a conversation")
    aot.add_argument(
        "--capacity-factor", type=float, default=1.25, help="train: as of a run; 0: room for all"
    )
    aot.add_argument("--json", metavar="FILE", help="for the reports")
    aot.add_argument("--dump", metavar="FILE", help="for the optimised program")
    aot.set_defaults(run=_aot)


# ---------------------------------------------------------------- commands


def _demo(options: argparse.Namespace) -> None:
    from interaction.serving.compilation_cache import use_compilation_cache
    from interaction.session.demo import run_demo

    use_compilation_cache(options.compilation_cache)
    given = {n: getattr(options, n) for n in ("audio", "video", "checkpoint")}
    run_demo(out=options.out, pace=options.pace, **{n: v for n, v in given.items() if v})


def _train(options: argparse.Namespace) -> None:
    from interaction import configuration

    values = with_overrides(read_config(options.config), options.set)
    name = values.pop("trainer", "interaction")
    if name not in TRAINERS:
        raise ValueError(f"trainer={name!r} is none of {', '.join(TRAINERS)}")
    module, config = TRAINERS[name]
    trainer = importlib.import_module(module)
    trainer.train(configuration.build(getattr(trainer, config), values), options.workdir)


def _data_build(options: argparse.Namespace) -> None:
    from interaction.data.build import command
    from interaction.eval.listening import Ears

    try:
        command.run(options, listener=Ears(), read_config=read_config)
    except ImportError as error:
        raise ValueError(str(error)) from error


def _eval(options: argparse.Namespace) -> None:
    from interaction.eval.evaluate import evaluate
    from interaction.eval.worker import SampleError
    from interaction.eval.write_layouts import write_layouts
    from interaction.serving.compilation_cache import use_compilation_cache

    # The processes that play find compiled programs in the same folder.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(use_compilation_cache())
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    out = pathlib.Path(options.out)
    try:
        evaluation = _evaluation(options, out)
        outcomes = evaluate(evaluation)
        print(f"report: {out / 'report.html'} and {out / 'report.json'}")
        if options.write_layout:
            for tree in write_layouts(evaluation, outcomes, pathlib.Path(options.write_layout)):
                print(f"runs in the authors' layout: {tree}")
    except (SampleError, ImportError, ConnectionError) as error:
        raise ValueError(str(error)) from error


def _evaluation(options: argparse.Namespace, out: pathlib.Path) -> Any:
    from interaction.eval import choose
    from interaction.eval.evaluate import SHOWN, SMALL, Background, Evaluation
    from interaction.eval.impairment import Impairment
    from interaction.eval.suites.fdb.v15_prosody import Prosody

    given = choose.Given(
        checkpoint=options.checkpoint,
        artefact="interaction.serving.board:ArtefactBoard",
        seed=options.seed,
    )
    return Evaluation(
        suites=choose.suites(options.suite),
        systems=choose.systems(options.system, given),
        out=out,
        data=pathlib.Path(options.data) if options.data else None,
        size=SMALL if options.size is None else options.size,
        seed=options.seed,
        speakers=choose.voices(options.voices),
        prosody=Prosody(options.prosody),
        impairments=[Impairment.parse(text) for text in options.impair or [""]],
        background=Background(options.background),
        modes=choose.modes(options.mode),
        ears=choose.ears(options.ears),
        judge=choose.judge(options.judge),
        processes=options.processes,
        shown=SHOWN if options.show is None else options.show,
    )


def _serve(options: argparse.Namespace) -> int:
    from interaction.data.voices import require

    try:
        require("aiohttp", "serve")
    except ImportError as error:
        raise ValueError(str(error)) from error
    from interaction.serving import command

    return command.run(options)


def _submit(options: argparse.Namespace) -> int:
    from interaction.launching import job as jobs
    from interaction.launching import submit

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command or command[0] == "submit":
        raise ValueError("after -- comes a command of launch.py other than submit")
    parsed = _parser().parse_args(command)  # its mistakes are found here, not in the queue
    serving = None
    if command[0] == "serve":
        serving = jobs.Serving(parsed.host, parsed.port, parsed.drain_seconds)
    given = vars(options)
    volumes = [tuple(each.partition("=")[::2]) for each in options.volume]
    if not all(source and path for source, path in volumes):
        raise ValueError(f"--volume {options.volume}: write it as SOURCE=PATH")
    need = {field.name: given[field.name] for field in dataclasses.fields(jobs.Resources)}
    own = ("restarts", "queue", "account", "image", "python", "root", "logs")
    job = jobs.Job(
        name=options.name or command[0],
        commands=jobs.sweep(command, options.sweep),
        resources=jobs.Resources(**need),
        volumes=tuple(volumes),
        serving=serving,
        **{name: given[name] for name in own},
    )
    target, through = submit.Target(options.on), submit.Through(options.through)
    if options.dry_run:
        print(submit.plan(job, target, through), end="")
        return 0
    return submit.submit(job, target, through)


def _export(options: argparse.Namespace) -> None:
    from interaction.models.config import CacheType
    from interaction.models.quantise import Experts
    from interaction.serving.export import Kernels, export_checkpoint
    from interaction.serving.manifest import Platform

    manifest = export_checkpoint(
        options.checkpoint,
        options.out,
        platform=Platform(options.platform),
        lanes=options.lanes,
        experts=Experts(options.experts),
        cache=None if options.cache is None else CacheType(options.cache),
        kernels=Kernels(options.kernels),
    )
    files = sorted(pathlib.Path(options.out).iterdir())
    for file in files:
        print(f"{file.stat().st_size:>12,} bytes  {file}")
    print(f"{len(manifest.programs)} programs for {options.platform}, lanes={options.lanes}")


def _aot(options: argparse.Namespace) -> int:
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing runs; a compiler needs no device
    from interaction.aot import command

    values = with_overrides(read_config(options.config), options.set)
    return command.run(values, options)


def _import(options: argparse.Namespace) -> None:
    from interaction.checkpoints.huggingface import import_checkpoint

    import_checkpoint(options.source, options.target)


def _export_hf(options: argparse.Namespace) -> None:
    from interaction.checkpoints.huggingface import export_checkpoint

    export_checkpoint(options.source, options.target)


# ---------------------------------------------------------------- configuration files


def read_config(place: str) -> dict[str, Any]:
    """The plain nested dict of a configuration file.

    Args:
        place: path of a file with ``get_config(arg="")``; what follows a colon is `arg`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no `get_config`.
    """
    file, _, argument = place.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"--config {place}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"configs.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"--config {place}: {path} defines no get_config")
    config = module.get_config(argument) if argument else module.get_config()
    return config.to_dict()


if __name__ == "__main__":
    sys.exit(main())
