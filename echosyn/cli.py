"""The command `echosyn`: projects, runs, clusters, searches for settings, presets of them, one
video's heart animated, a page that makes single videos, versions of a release, late records,
published weights.
"""

import argparse
import sys
import threading
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from echosyn.cli_app import add_app
from echosyn.cli_releases import add_releases
from echosyn.cli_weights import add_weights
from echosyn.runtime.errors import EchosynError

if TYPE_CHECKING:
    from echosyn.cluster.submit import Jobs


def main(argv: list[str] | None = None) -> int:
    """Parse and run; the exit status. What a user can mend is one line on standard error."""
    parser = argparse.ArgumentParser(prog="echosyn", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_init(commands)
    _add_run(commands)
    _add_jobs(commands)
    _add_tune(commands)
    _add_preset(commands)
    _add_animate(commands)
    add_app(commands)
    add_releases(commands)
    _add_sync(commands)
    add_weights(commands)
    _add_doctor(commands)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except EchosynError as e:
        print(f"echosyn: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _add_init(commands: argparse._SubParsersAction) -> None:
    init = commands.add_parser(
        "init",
        help="start a project of your own: code, git, DVC and its remote in a new folder",
        description="Make DIR a project that several people can work on: a clone of this checkout "
        "with a first commit of its own, whose git keeps settings and numbers and whose DVC remote "
        "keeps data and weights (docs/teamwork.md).",
    )
    init.add_argument("folder", type=Path, metavar="DIR", help="a folder that is not there yet")
    init.add_argument(
        "--remote",
        metavar="WHERE",
        help="a shared folder, or an address as DVC takes it (s3://...)",
    )
    init.set_defaults(run=_init)


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser(
        "run",
        help="dvc repro, several stages at once",
        description="Bring stages up to date as `dvc repro` does, several at once where they do "
        "not wait for each other, and print what each took. What they print is in .echosyn/log. "
        "Ctrl-C lets them save; the same command goes on.",
    )
    run.add_argument("targets", nargs="*", help="stages, or groups of them (default: all)")
    run.add_argument(
        "--jobs", type=int, default=0, help="stages at once (default: 2; 1 with a GPU or one core)"
    )
    run.set_defaults(run=_run)


def _add_jobs(commands: argparse._SubParsersAction) -> None:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--address", help="jobs server, http://HEAD:8265 (default: RAY_API_SERVER_ADDRESS)"
    )
    submit = commands.add_parser(
        "submit",
        parents=[shared],
        help="run `dvc repro` on a Ray cluster",
        description="Run `dvc repro` on a Ray cluster and follow it. Ctrl-C stops looking, not the "
        "job. The exit status is that of `dvc repro`, or 130 for a job that was stopped.",
    )
    submit.add_argument("targets", nargs="*", help="stages, as dvc repro takes them (default: all)")
    submit.add_argument(
        "--project", type=Path, help="the project folder as the cluster sees it (default: this one)"
    )
    submit.add_argument("--no-wait", action="store_true", help="print the job's id and return")
    for option, text in {
        "--force": "run stages though nothing changed",
        "--single-item": "only the targets, not what they depend on",
        "--keep-going": "go on with stages that do not depend on a failed one",
    }.items():
        submit.add_argument(option, action="store_true", help=text)
    submit.set_defaults(run=_submit)
    commands.add_parser("jobs", parents=[shared], help="list jobs").set_defaults(run=_jobs)
    logs = commands.add_parser("logs", parents=[shared], help="print what a job printed")
    logs.add_argument("job", metavar="ID")
    logs.add_argument("--follow", action="store_true", help="go on until the job has ended")
    logs.set_defaults(run=_logs)
    stop = commands.add_parser("stop", parents=[shared], help="end a job; a stage saves its work")
    stop.add_argument("job", metavar="ID")
    stop.set_defaults(run=_stop)


def _add_tune(commands: argparse._SubParsersAction) -> None:
    tune = commands.add_parser(
        "tune",
        help="search for better settings of a model's training",
        description="Search the space in section `tune` of params.yaml, on the cluster at "
        "RAY_ADDRESS or on this machine. Every trial is a nested MLflow run. Better settings are "
        "shown as a patch, never applied. The same command goes on after an interruption.",
    )
    tune.add_argument("model", choices=("vae", "lidm", "lvdm", "reid", "ef"))
    tune.add_argument("subject", nargs="*", help="the dataset (lidm, reid, ef), and the arm (ef)")
    tune.set_defaults(run=_tune)


def _add_preset(commands: argparse._SubParsersAction) -> None:
    preset = commands.add_parser(
        "preset",
        help="settings of params.yaml that belong together, such as the reference's protocol",
        description="List the presets of conf/presets, or print what one changes in params.yaml as "
        "a patch for `git apply`. Run from the project folder.",
    )
    preset.add_argument("name", nargs="?", metavar="NAME", help="as the list has it")
    preset.add_argument(
        "--weights",
        action="store_true",
        help="use the published weights in weights/vae, weights/lidm/<dataset> and weights/lvdm "
        "instead of training",
    )
    preset.add_argument("--write", action="store_true", help="change params.yaml at once")
    preset.set_defaults(run=_preset)


def _add_animate(commands: argparse._SubParsersAction) -> None:
    animate = commands.add_parser(
        "animate",
        help="one video's heart at other EFs, or the very video at them",
        description="Take the heart of a video and animate it at each EF (percent) with a "
        "project's models; or, with --counterfactual, give the very video another EF. Writes a "
        "video per EF, sweep.webp, sheet.png and scores.json: EF measured, SSIM against the real "
        "clip, and whether re-identification still finds the same heart.",
    )
    animate.add_argument("--video", type=Path, required=True, help="AVI, MP4, MKV or WMV file")
    animate.add_argument(
        "--ef", type=float, nargs="+", action="extend", required=True, metavar="PERCENT"
    )
    animate.add_argument(
        "--frame",
        type=_frame,
        default="ed",
        metavar="N|ed",
        help="the heart: frame N of the file, from 0, or the one nearest to end-diastole (default)",
    )
    animate.add_argument(
        "--counterfactual", action="store_true", help="this very video at the EFs asked for"
    )
    animate.add_argument(
        "--from-ef",
        type=float,
        metavar="PERCENT",
        help="with --counterfactual: the EF that the video has (default: as measured)",
    )
    animate.add_argument(
        "--project", type=Path, default=Path(), help="folder of the trained models (default: here)"
    )
    animate.add_argument(
        "--models", metavar="DATASET", help="whose EF regressor and re-identification (default: "
        "the only ones)",
    )  # fmt: skip
    animate.add_argument(
        "--model", metavar="NAME", help="video model, as models/NAME (default: sample_videos.model)"
    )
    animate.add_argument("--out", type=Path, help="folder to make (default: <video>_animated)")
    animate.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    animate.add_argument("--steps", type=int, help="default: that of sample_videos")
    animate.add_argument("--guidance", type=float, help="on EF, 1 is none (default: the same)")
    animate.set_defaults(run=_animate)


def _frame(text: str) -> int | None:
    if text == "ed":
        return None
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a frame number nor 'ed'")
    return int(text)


def _add_sync(commands: argparse._SubParsersAction) -> None:
    sync = commands.add_parser(
        "sync", help="send to MLflow what waits in .echosyn/outbox for a server that was away"
    )
    sync.add_argument("--follow", action="store_true", help="go on until the end of standard input")
    sync.set_defaults(run=_sync)


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="is this machine fit: versions, memory, disk, and whether its arithmetic is right",
        description="Say what a run here will meet: Python, git, cores, memory, disk, the folder, "
        "versions against constraints.txt, GPU, the index of packages; then compare every "
        "operation of the project's networks, forward and backward, with the same in a higher "
        "precision. The exit status is 1 if something would stop a run.",
    )
    doctor.add_argument("--anew", action="store_true", help="check the arithmetic again")
    doctor.add_argument("--arithmetic", action="store_true", help="look at nothing else")
    doctor.add_argument("--offline", action="store_true", help="ask no index of packages")
    doctor.set_defaults(run=_doctor)


def _server(args: argparse.Namespace) -> "Jobs":
    from echosyn.cluster.submit import Jobs, jobs_address

    return Jobs(jobs_address(args.address))


def _init(args: argparse.Namespace) -> int:
    from echosyn.project.new_project import next_steps, start_project

    print(next_steps(start_project(args.folder, args.remote), args.remote))
    return 0


def _submit(args: argparse.Namespace) -> int:
    server = _server(args)
    project = args.project or Path.cwd()
    if not args.project and not (project / "dvc.yaml").is_file():
        raise EchosynError(f"no dvc.yaml in {project}: run from the project, or give --project")
    options = [f"--{o}" for o in ("force", "single-item", "keep-going") if _given(args, o)]
    job = server.submit(project, [*options, *args.targets])
    if args.no_wait:
        print(job)
        return 0
    print(f"{job}; Ctrl-C stops looking, `echosyn stop {job}` ends it", file=sys.stderr)
    return _follow(server, job)


def _given(args: argparse.Namespace, option: str) -> bool:
    return getattr(args, option.replace("-", "_"))


def _follow(server: "Jobs", job: str) -> int:
    from echosyn.cluster.submit import DETACHED, exit_status

    try:
        ended = server.follow(job)
    except KeyboardInterrupt:
        print(
            f"\n{job} goes on. Look again: echosyn logs --follow {job}. End it: echosyn stop {job}",
            file=sys.stderr,
        )
        return DETACHED
    print(f"{job} {ended.status.lower()}", file=sys.stderr)
    return exit_status(ended)


def _jobs(args: argparse.Namespace) -> int:
    rows = [("ID", "STATUS", "STARTED", "SECONDS", "TARGETS")]
    for job in _server(args).all():
        start = datetime.fromtimestamp(job.start).isoformat(" ", "seconds") if job.start else "-"
        end = job.end or datetime.now().timestamp()
        seconds = f"{end - job.start:.0f}" if job.start else "-"
        rows.append((job.id, job.status, start, seconds, job.targets))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = [cell.ljust(w) for cell, w in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[4]]))
    return 0


def _logs(args: argparse.Namespace) -> int:
    server = _server(args)
    if args.follow:
        return _follow(server, args.job)
    print(server.logs(args.job), end="")
    return 0


def _stop(args: argparse.Namespace) -> int:
    server = _server(args)
    ended = server.stop(args.job)
    print(f"{args.job} {ended.status.lower()}")
    return 0


def _tune(args: argparse.Namespace) -> int:
    from echosyn.cluster.search import search
    from echosyn.runtime.process import prepare, project_root

    prepare()
    try:
        print(search(project_root().resolve(), args.model, tuple(args.subject)), end="")
    except KeyboardInterrupt:
        print("echosyn: stopped; the same command continues where it was", file=sys.stderr)
        raise
    return 0


def _preset(args: argparse.Namespace) -> int:
    from echosyn.project import preset
    from echosyn.runtime.process import project_root

    root = project_root()
    if args.name is None:
        if args.weights or args.write:
            raise EchosynError("which preset? `echosyn preset` lists them: echosyn preset NAME ...")
        for known in preset.all_presets(root):
            print(f"{known.name:<12}  {known.about}")
        return 0
    chosen = preset.find_preset(root, args.name)
    if args.weights:
        chosen = preset.with_weights(chosen, root)
    change = preset.plan_change(root, chosen)
    if not change.lines:
        print(f"nothing to change: params.yaml has all of '{chosen.name}'", file=sys.stderr)
    elif args.write:
        preset.write_change(root, change)
        print("\n".join([f"params.yaml, as preset '{chosen.name}' has it:", *change.lines]))
    else:
        print(change.patch, end="")
    return 0


def _animate(args: argparse.Namespace) -> int:
    from echosyn.runtime.process import prepare, threads

    prepare()
    from echosyn.runtime.device import set_threads
    from echosyn.synthesis.animate_video import Request, animate_video, table

    set_threads(threads())
    out = args.out or Path(f"{args.video.stem}_animated")
    asked = {f.name: getattr(args, f.name) for f in fields(Request) if f.name in vars(args)}
    request = Request(**{**asked, "efs": tuple(dict.fromkeys(args.ef)), "out": out})
    print(table(animate_video(request)))
    print(f"in {out}: a video per EF, sweep.webp, sheet.png, scores.json")
    return 0


def _run(args: argparse.Namespace) -> int:
    from echosyn.runtime.process import prepare, project_root

    prepare()
    from echosyn.project.runner import run

    if args.jobs < 0:
        raise EchosynError(f"--jobs {args.jobs}: expected a number of stages, 1 or more")
    try:
        run(project_root().resolve(), args.targets, args.jobs)
    except KeyboardInterrupt:
        print("echosyn: stopped; the same command continues where it was", file=sys.stderr)
        raise
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from echosyn.runtime.process import prepare, project_root, threads

    prepare()
    from echosyn.project.doctor import examine_arithmetic, examine_machine
    from echosyn.runtime.device import set_threads

    root, bad = project_root().resolve(), False
    set_threads(threads())
    parts = [] if args.arithmetic else [examine_machine(root, index=not args.offline)]
    for findings in (*parts, examine_arithmetic(root, args.anew)):
        for finding in findings:
            print(finding, flush=True)
            bad |= finding.state == "bad"
    return int(bad)


def _sync(args: argparse.Namespace) -> int:
    from echosyn.tracking import carry, sync

    if args.follow:
        ended = threading.Event()

        def wait() -> None:
            sys.stdin.read()
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        return 1 if carry(ended.is_set) else 0
    sent, left = sync()
    print(f"{sent} records sent, {left} left")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
