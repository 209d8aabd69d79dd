"""Gates: Great Expectations decides whether a dataset folder may pass; it never mends one.

`tables` measures the folder, `suites` says what is expected, `engine` is the only file that knows
Great Expectations, `page` draws the outcome, `gate` puts them together.
"""

from echosyn.validation.gate import GateResult, ValidateConfig, run_gate

__all__ = ["GateResult", "ValidateConfig", "run_gate"]
