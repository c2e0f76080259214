"""The opponents on tabular MDPs, under the field's names, B trials at once. Never torch."""

from __future__ import annotations

from collections.abc import Mapping

from training.baselines_mdps.algorithm import Algorithm, optimal, optimal_value, play
from training.baselines_mdps.bonus import beb, planner, planner_values
from training.baselines_mdps.greedy import epsilon_greedy, greedy, uniform
from training.baselines_mdps.history import TRUE_PRIOR_MEAN, Actions, History
from training.baselines_mdps.psrl import opsrl, psrl
from training.baselines_mdps.ucrl2 import ucrl2

NAMED: Mapping[str, Algorithm] = {
    "random": uniform,
    "psrl": psrl(),
    "opsrl": opsrl(),
    "ucrl2": ucrl2(),
    "beb": beb(),
    "epsilon_greedy": epsilon_greedy(),
    "greedy": greedy(),
    "planner": planner(),
    "psrl_prior": psrl(TRUE_PRIOR_MEAN),
    "opsrl_prior": opsrl(TRUE_PRIOR_MEAN),
    "greedy_prior": greedy(TRUE_PRIOR_MEAN),
    "beb_prior": beb(1.0, TRUE_PRIOR_MEAN, transitions_prior_counts=False),
}
"""Every baseline. The first seven are those of Duan et al. (2016), as they ran them; those whose
names end in `_prior` know the family's mean reward, as the planner does."""

PUBLISHED: Mapping[str, Mapping[int, float]] = {
    name: dict(zip((10, 25, 50, 75, 100), column, strict=True))
    for name, column in {
        "random": (100.1, 250.2, 499.7, 749.9, 999.4),
        "psrl": (138.1, 408.8, 904.4, 1417.1, 1939.5),
        "opsrl": (144.1, 425.2, 930.7, 1449.2, 1973.9),
        "ucrl2": (146.6, 424.1, 918.9, 1427.6, 1942.1),
        "beb": (150.2, 427.8, 917.8, 1422.6, 1935.1),
        "epsilon_greedy": (132.8, 377.3, 823.3, 1293.9, 1778.2),
        "greedy": (134.8, 368.8, 769.3, 1172.9, 1578.5),
        "rl2": (156.2, 445.7, 936.1, 1428.8, 1913.7),
        "snail": (159.1, 447.2, 942.3, 1447.5, 1953.1),
    }.items()
}
"""Total reward of a trial by n: Duan et al. (2016), table 2, over 1,000 trials; `snail` is Mishra
et al. (2018). Quoted, never measured here."""

__all__ = [
    "NAMED",
    "PUBLISHED",
    "TRUE_PRIOR_MEAN",
    "Actions",
    "Algorithm",
    "History",
    "beb",
    "epsilon_greedy",
    "greedy",
    "opsrl",
    "optimal",
    "optimal_value",
    "planner",
    "planner_values",
    "play",
    "psrl",
    "ucrl2",
    "uniform",
]
