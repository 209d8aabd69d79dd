"""Whether this machine computes what a network asks of it; see `watch` and `trust`."""
