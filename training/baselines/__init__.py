"""The opponents: bandit algorithms under the field's names, B accounts at once. Never torch."""

from training.baselines.algorithms import (
    EPSILON,
    OTS_SAMPLES,
    UCB1_EXPLORATION,
    epsilon_greedy,
    fixed,
    forgetting,
    greedy,
    optimistic_thompson,
    posterior_sampling,
    thompson,
    ucb1,
    ucb1_classic,
    uniform,
    win_stay,
)
from training.baselines.bayes_optimal import bayes_optimal
from training.baselines.gittins import GittinsTable, gittins_rule, gittins_table
from training.baselines.history import Actions, Algorithm, History, play
from training.baselines.posteriors import FLAT, BetaBelief, NormalBelief, Posterior

__all__ = [
    "EPSILON",
    "FLAT",
    "OTS_SAMPLES",
    "UCB1_EXPLORATION",
    "Actions",
    "Algorithm",
    "BetaBelief",
    "GittinsTable",
    "History",
    "NormalBelief",
    "Posterior",
    "bayes_optimal",
    "epsilon_greedy",
    "fixed",
    "forgetting",
    "gittins_rule",
    "gittins_table",
    "greedy",
    "optimistic_thompson",
    "play",
    "posterior_sampling",
    "thompson",
    "ucb1",
    "ucb1_classic",
    "uniform",
    "win_stay",
]
