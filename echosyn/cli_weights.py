"""The command `echosyn weights`: published networks for measuring, and published generators."""

import argparse
from dataclasses import fields
from pathlib import Path


def add_weights(commands: argparse._SubParsersAction) -> None:
    """Add `weights` and what it can do to the command line."""
    weights = commands.add_parser(
        "weights",
        help="networks of FID, IS and FVD: list, fetch; published generators: test, export",
        description="List the published networks that FID, IS and FVD need, and whether they are "
        "in the cache. Nothing is downloaded unless `fetch` asks for it.",
    )
    actions = weights.add_subparsers(dest="action", metavar="ACTION")
    fetch = actions.add_parser("fetch", help="download one of them and verify it")
    fetch.add_argument("name", metavar="NAME", help="as the list has it")
    fetch.set_defaults(run=_fetch)
    _add_test(actions)
    export = actions.add_parser(
        "export",
        help="write a project's generators in the layout of the published ones",
        description="Write models/vae, models/lidm/DATASET and models/lvdm of this project as the "
        "reference publishes its own. They must be of its layout and objective (`echosyn preset "
        "reference`).",
    )
    export.add_argument("dataset", metavar="DATASET", help="whose image model")
    export.add_argument("out", type=Path, metavar="FOLDER", help="to make")
    export.set_defaults(run=_export)
    weights.set_defaults(run=_list)


def _add_test(actions: argparse._SubParsersAction) -> None:
    test = actions.add_parser(
        "test",
        help="do published generators reach their published numbers?",
        description="Look at every file of a folder of published generators (vae, lidm_DATASET, "
        "lvdm), sample by the reference's protocol, measure FID, IS, FVD and EF with intervals "
        "against a real dataset, and say which published figures lie inside. Interrupted, the same "
        "command goes on. The exit status is 1 if a figure lies outside. Takes a GPU for hours at "
        "the protocol's own counts.",
    )
    test.add_argument("folder", type=Path, metavar="FOLDER", help="the published generators")
    test.add_argument(
        "--real", type=Path, required=True, metavar="DATA",
        help="real dataset as ingested, e.g. data/train/dynamic; TRAIN and TEST are used",
    )  # fmt: skip
    test.add_argument("--dataset", default="dynamic", help="whose image model (default: dynamic)")
    test.add_argument("--hearts", type=int, default=50_000, help="to draw (default: 50000)")
    test.add_argument("--videos", type=int, default=2_048, help="to sample (default: 2048)")
    test.add_argument("--frames", type=int, default=192, help="of a video (default: 192)")
    test.add_argument("--steps", type=int, default=64, help="denoising steps (default: 64)")
    test.add_argument(
        "--hearts-from", choices=("lidm", "real"), default="lidm",
        help="what is animated: hearts that the image model draws, or frames of real TRAIN videos",
    )  # fmt: skip
    for name, use in (("inception", "FID and IS"), ("i3d", "FVD")):
        test.add_argument(
            f"--{name}", type=Path, metavar="FILE",
            help=f"network of {use} (default: the one in the cache, if it was fetched)",
        )  # fmt: skip
    test.add_argument(
        "--regressor", type=Path, metavar="FOLDER",
        help="EF regressors, e.g. models/ef/dynamic/real, to measure the EF that was asked for",
    )  # fmt: skip
    test.add_argument(
        "--evaluated", type=Path, metavar="FILE",
        help="metrics/evaluate/DATASET.json of a project, for the EF figures",
    )  # fmt: skip
    test.add_argument(
        "--figures", type=Path, metavar="FILE",
        help="result.json of an earlier test to compare with, instead of the published figures",
    )  # fmt: skip
    test.add_argument("--seed", type=int, default=0, help="of all noise (default: 0)")
    test.add_argument(
        "--out", type=Path, default=Path("weights_test"),
        help="folder for result.json and the samples (default: weights_test)",
    )  # fmt: skip
    test.set_defaults(run=_test)


def _list(args: argparse.Namespace) -> int:
    from echosyn.metrics import weights

    print(f"in {weights.cache_folder()}:")
    for name, w in weights.KNOWN.items():
        print(f"{name:<10}  {w.bytes / 1e6:5.1f} MB  {w.licence:<10}  {weights.state(name):<11}  "
              f"{w.use}: {w.file}")  # fmt: skip
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from echosyn.metrics import weights

    print(weights.fetch(args.name))
    return 0


def _test(args: argparse.Namespace) -> int:
    from echosyn.runtime.process import prepare, threads

    prepare()
    from echosyn.cluster import map_rows, run_shards
    from echosyn.metrics.weights import KNOWN, cached, locate
    from echosyn.project.weights_figures import Compared, table
    from echosyn.project.weights_request import Request
    from echosyn.project.weights_selftest import self_test
    from echosyn.runtime.device import set_threads

    set_threads(threads())
    for name in KNOWN:
        given = getattr(args, name) or (path if (path := cached(name)).is_file() else None)
        setattr(args, name, locate(name, given) if given else None)
    asked = {f.name: getattr(args, f.name) for f in fields(Request)}
    made = self_test(Request(**asked), run_shards, map_rows)
    rows = [Compared(**row) for row in made["figures"]]
    print(table(rows))
    for note in made["notes"]:
        print(f"note: {note}")
    verdicts = [row.verdict for row in rows]
    outside = verdicts.count("outside")
    held = verdicts.count("inside") + verdicts.count("the same")
    print(f"{held} of {held + outside} figures that can be compared lie inside; all numbers: "
          f"{args.out / 'result.json'}")  # fmt: skip
    return int(outside > 0)


def _export(args: argparse.Namespace) -> int:
    from echosyn.runtime.process import prepare, project_root

    prepare()
    from echosyn.project.weights_folder import export

    print("\n".join(export(project_root() / "models", args.dataset, args.out)))
    return 0
