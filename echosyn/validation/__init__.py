"""Gates: Great Expectations decides whether a dataset or its latents may pass; it mends nothing.

`videos`, `splits`, `tables` and `latents` measure, `expectations/*.yaml` say what must hold and
`suites` reads them, `engine` is the only file that knows Great Expectations, `page` and `charts`
draw the outcome, `gate` puts them together.
"""

from echosyn.validation.gate import (
    GateResult,
    LatentsConfig,
    ValidateConfig,
    run_gate,
    run_latents_gate,
)

__all__ = ["GateResult", "LatentsConfig", "ValidateConfig", "run_gate", "run_latents_gate"]
