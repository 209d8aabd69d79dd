"""Make a pseudonym key.  python -m echosyn.data.ingest.new_key ~/.echosyn/pseudonym.key"""

import sys

from echosyn.data.ingest.pseudonym import make_key
from echosyn.runtime.errors import EchosynError


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m echosyn.data.ingest.new_key FILE")
    try:
        made = make_key(sys.argv[1])
    except EchosynError as e:
        sys.exit(f"echosyn: {e}")
    print(f"{made}: written. Keep a copy in a safe place: without it no pseudonym can be repeated.")


if __name__ == "__main__":
    main()
