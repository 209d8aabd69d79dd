"""A versioned release: synthetic videos, their FileList, a manifest and a card."""

from echosyn.release.manifest import verify

__all__ = ["verify"]
