"""Ray Tune's schedulers as a search is to use them. Imported only while Ray runs."""

import random
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler

from echosyn.cluster.space import Range, SearchConfig


def make_scheduler(
    config: SearchConfig, space: dict[str, Range], every: int, steps: int
) -> TrialScheduler:
    """ASHA (arXiv 1810.05934) or PBT (arXiv 1711.09846), counting optimizer steps."""
    if config.method == "asha":
        return ASHAScheduler(
            time_attr="step",
            max_t=steps,
            grace_period=min(config.grace * every, steps),
            reduction_factor=config.reduction,
        )
    return _Repeatable(config.seed, space, every)


class _Repeatable(PopulationBasedTraining):
    """PBT whose every choice is a function of the seed, the trial and the step, so that a search
    that starts again and replays its history comes to the same choices."""

    def __init__(self, seed: int, space: dict[str, Range], every: int) -> None:
        super().__init__(
            time_attr="step",
            perturbation_interval=every,
            custom_explore_fn=self._moved,
            synch=True,
            log_config=False,
        )
        self._seed, self._space = seed, space

    def _moved(self, config: dict[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng(random.getrandbits(63))
        settings = config["start"]["settings"]
        moved = {key: limits.moved(settings[key], rng) for key, limits in self._space.items()}
        return {**config, "start": {**config["start"], "settings": moved}}

    def _checkpoint_or_exploit(self, trial: Any, *arguments: Any) -> None:
        random.seed(f"{self._seed} {trial} {self._trial_state[trial].last_train_time}")
        super()._checkpoint_or_exploit(trial, *arguments)
