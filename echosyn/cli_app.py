"""The command `echosyn app`: a page on this machine that makes single synthetic videos."""

import argparse

PORT = 5001


def add_app(commands: argparse._SubParsersAction) -> None:
    """Add `app` to the command line."""
    app = commands.add_parser(
        "app",
        help="make single synthetic videos in the browser",
        description="Serve a page on 127.0.0.1 where one picks or draws a synthetic heart, sets EF "
        "and heart rate, and sees the video that the project's models make of it, what is measured "
        "in it, and whether the privacy filters refuse it. It needs what `make demo` leaves.",
    )
    app.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="default: the first under `generate`"
    )
    app.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: any free one")
    app.set_defaults(run=_app)


def _app(args: argparse.Namespace) -> int:
    from echosyn.runtime.process import prepare, project_root, state_root, threads

    prepare()
    from echosyn.app.maker import Maker
    from echosyn.app.server import require_port, serve
    from echosyn.runtime.config import Params
    from echosyn.runtime.device import set_threads

    set_threads(threads())
    require_port(args.port)
    params = Params(project_root())
    dataset = args.dataset or next(iter(params.raw.get("generate") or []), "")
    print(f"app: loading what makes and judges videos of {dataset}", flush=True)
    serve(Maker(params, dataset, state_root()), args.port)
    return 0
