"""Echosyn: from a private echocardiogram dataset to a synthetic one that may be shared."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echosyn.release.load import load_release

__version__ = "0.1.0"
__all__ = ["load_release"]


def __getattr__(name: str) -> Any:
    """`load_release` when it is first asked for: it needs pandas and torch, `import echosyn` not"""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from echosyn.release import load

    return getattr(load, name)
