"""The page, on 127.0.0.1 alone: what it shows is compared with patients."""

import dataclasses
import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import make_server

from echosyn.app.maker import STEPS, Made, Maker, Wish
from echosyn.report.html import render
from echosyn.report.mosaic import moving
from echosyn.report.numbers import Number
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError

HOST = "127.0.0.1"
ROOM = 4_000_000  # bytes of a picture


def create_app(maker: Maker) -> Flask:
    """The page at `/`, and `/videos`, which takes a Wish as JSON and answers line by line: each
    `step` with its `number`, and at the end `html` or an `error`."""
    app = Flask(__name__, static_folder=None)
    # A page of another site, under a name of its own that leads here, is refused.
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]

    @app.get("/")
    def page() -> str:
        return render(
            "app.html",
            title=f"One synthetic video of {maker.dataset}",
            dataset=maker.dataset,
            choices=maker.choices,
            steps=STEPS,
        )

    @app.post("/videos")
    def videos() -> Response:
        asked = request.get_json()  # nothing but JSON: what a form of another site cannot send
        return Response(_lines(maker, asked), mimetype="application/x-ndjson")

    return app


def _lines(maker: Maker, asked: Any) -> Iterator[str]:
    def line(**said: object) -> str:
        return json.dumps(said) + "\n"

    if maker.turn.locked():
        yield line(step="waiting for the video before it", number=0)
    with maker.turn:
        try:
            for number, said in enumerate(maker.make(build(Wish, asked, "asked for"))):
                if isinstance(said, Made):
                    yield line(html=shown(said, maker.ef_error))
                else:
                    yield line(step=said, number=number)
        except EchosynError as e:
            yield line(error=str(e))


def shown(made: Made, ef_error: float | None) -> str:
    """A finished video and what was found in it, as a piece of the page.

    Args:
        ef_error: mean error of the EF regressors on real TEST, points, if known.
    """
    seconds = len(made.frames) / made.fps
    alt = f"synthetic video {made.name}, {seconds:.1f} seconds"
    video = (made.frames, made.fps)
    return render(
        "made.html",
        made=made,
        picture=moving([video], made.fps, seconds, 1, ROOM, alt),
        ef_error=ef_error,
        verdicts=[
            (v.what, Number(v.score), Number(*dataclasses.astuple(v.tau)),
             "refused" if v.refused else "kept")
            for v in made.verdicts
        ],
    )  # fmt: skip


def require_port(port: int) -> None:
    """Raises EchosynError for a port that cannot be had: loading takes longer than asking."""
    try:
        socket.create_server((HOST, port)).close()
    except (OSError, OverflowError) as e:
        raise EchosynError(f"port {port} of {HOST} cannot be had ({e}): give another --port") from e


def serve(maker: Maker, port: int) -> None:
    """Serve until Ctrl-C, and let a video that is being made end."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server(HOST, port, create_app(maker), threaded=True)
    print(f"app: http://{HOST}:{server.port}   Ctrl-C ends it", flush=True)
    server.serve_forever()
    with maker.turn:
        print("app: ended")
