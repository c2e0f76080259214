"""Everything that shapes a training run, with its default. It must import nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from training.tasks.bandits import refuse_impossible_family

_HIGHEST_RATE = 1e30
"""A rate far above it does not fit the single-precision number that Adam multiplies with."""


@dataclass(frozen=True)
class Hyperparameters:
    """Everything that shapes a training run."""

    horizons: int = 2
    """Numbers of pulls drawn for an iteration."""
    groups: int = 3
    """Families for each, all of that many pulls, each with its own number of arms."""
    steps_per_group: int = 8_000
    """Interactions a family plays; trials = steps / pulls."""
    arms: tuple[int, int] = (2, 50)
    """Arms are drawn log-uniformly from this range."""
    pulls: tuple[int, int] = (5, 250)
    """Pulls a trial are drawn log-uniformly from this range."""
    choice_share: float = 0.25
    """Share of trials that are choices: preferences over the arms that sum to one, with habits and
    changes, instead of fixed uniform means."""
    expected_rewards: bool = True
    """Returns add up the arm's mean minus the best arm's, in place of the sampled coin: a
    simulator's variance reduction that leaves the gradient unbiased. The policy sees coins."""
    discount: float = 1.0
    gae_lambda: float = 0.95
    radius: float = 0.01
    """Largest mean KL divergence from the old policy to the new."""
    damping: float = 1e-3
    cg_iterations: int = 10
    fisher_trials: float = 0.25
    """Share of the trials that the Fisher product sees."""
    fisher_times: float = 0.25
    """Share of the steps of those trials whose policy it sees."""
    critic_rate: float = 1e-3
    critic_epochs: int = 2
    critic_batches: int = 4

    def __post_init__(self) -> None:
        for name in ("arms", "pulls"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected a range from low to high, got {low} to {high}")
        for name, field in (("arms", "k"), ("pulls", "n")):
            for bound in getattr(self, name):
                try:
                    refuse_impossible_family(**{"k": 2, "n": 1, field: bound})
                except ValueError as error:
                    expected = str(error).removeprefix(f"{field}: ")
                    raise ValueError(f"{name}: {expected}") from error
        refuse_impossible_family(k=2, n=1, choice_share=self.choice_share)
        counts = ("horizons", "groups", "steps_per_group", "cg_iterations")
        for name in (*counts, "critic_epochs", "critic_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("discount", "gae_lambda", "fisher_trials", "fisher_times"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: expected a share in (0, 1], got {getattr(self, name)}")
        for name in ("radius", "critic_rate"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if self.critic_rate > _HIGHEST_RATE:
            raise ValueError(
                f"critic_rate: expected at most {_HIGHEST_RATE:g}, got {self.critic_rate}"
            )
        if not self.damping >= 0.0:
            raise ValueError(f"damping: expected at least 0, got {self.damping}")
