"""Where the arithmetic runs and in which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch


def pick_device() -> torch.device:
    """The first GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(wanted: str) -> str:
    """Resolve "auto": bf16 where the hardware multiplies in bf16, else fp32."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if native() else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast context for inference in the precision that training used."""
    precision = pick_precision(precision)
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def set_threads(n: int) -> None:
    """CPU threads of torch and OpenCV; sums, and so bytes, depend on it."""
    import cv2

    torch.set_num_threads(n)
    cv2.setNumThreads(1)
