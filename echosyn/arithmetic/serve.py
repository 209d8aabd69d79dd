"""The process of checks that `trust` starts: python -m echosyn.arithmetic.serve DESCRIPTOR

It gets jobs from its parent, and nobody else, over the pipe of that descriptor, and answers each.
"""

import pickle
import sys
from multiprocessing.connection import Connection

from echosyn.runtime.process import end_with_parent, prepare


def main(descriptor: int) -> None:
    end_with_parent()
    prepare()
    import torch

    from echosyn.arithmetic.trust import UNKNOWN, findings_of

    pipe = Connection(descriptor)
    device, threads, data = pipe.recv()
    torch.set_num_threads(threads)
    try:
        jobs = pickle.loads(data)
    except (AttributeError, ImportError):
        pipe.send(UNKNOWN)
        return
    for probe, precision in jobs:
        pipe.send(findings_of(probe, precision, torch.device(device)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
