"""Where to look first: python -m echosyn.tracking [ADDRESS]

Prints the address of the saved view that compares releases, in a UI at ADDRESS.
"""

import sys

from echosyn.runtime.errors import EchosynError
from echosyn.tracking import RELEASES, tracking_uri
from echosyn.tracking.release import VIEW
from echosyn.tracking.store import Store, experiment_id


def main(address: str = "http://127.0.0.1:5000") -> None:
    uri = tracking_uri()
    number = experiment_id(Store(uri).client, uri, RELEASES)
    print(f"releases: {address}/#/experiments/{number}/runs?viewStateShareKey={VIEW}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except EchosynError as e:
        sys.exit(f"echosyn: {e}")
