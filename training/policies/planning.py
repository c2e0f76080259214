"""`planning`: the exact posterior of a tabular MDP as memory, a differentiable planner as head.

Memory holds counts and sums, one row an action, one column a state; `decide` plans the rest of the
episode on the posterior by backward induction, as a value iteration network does (Tamar et al.
2016), with a learned worth of what is not known yet. The context is the state, one-hot. It must
never see an action's index or learn anything else from a state's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from training.bounds import refuse_below
from training.record import Record
from training.trust_region import Linearised, differentiated

_STATE_ACTION_FEATURES = 9
_COMMON_FEATURES = 3
_POOLED = 7
_MOMENTS_AT_ONCE = 1_024
_SOFTNESS = 0.25
"""Of the choices in the plan of an episode to come, in deviations of the noise."""

_RECALLED: MutableMapping[Record, tuple[Tensor | None, Posterior]] = WeakIdKeyDictionary()
"""The steps last wanted of a record, and the posteriors there, for as long as the record lives."""


@dataclass(frozen=True)
class PlanningSizes:
    """What it takes to build the network again."""

    actions: int = 5
    context: int = 10
    """States: the context is a one-hot of so many."""
    episode: int = 10
    """Steps of an episode."""
    reward_scale: float = 6.0
    """What an encoded reward is multiplied with to be in standard deviations of the noise."""
    width: int = 16
    action_features: int = 0

    def __post_init__(self) -> None:
        refuse_below(self, 2, "actions")
        refuse_below(self, 1, "context", "episode", "width")
        if not self.reward_scale > 0.0:
            raise ValueError(f"reward_scale: expected more than 0, got {self.reward_scale}")
        if self.action_features:
            raise ValueError("action_features: planning takes none; use actionwise")


class Posterior(NamedTuple):
    """What is known of N accounts' MDPs, and where they stand."""

    model: Tensor
    """Mean transition probabilities, `[N, K, S, S']`."""
    total: Tensor
    """Transitions seen and the prior's, one for each next state, `[N, K, S]`."""
    mean: Tensor
    """Mean rewards above the prior's, in deviations of the noise, `[N, K, S]`."""
    visits: Tensor
    """Rewards seen, `[N, K, S]`; an episode's last step has one, but no transition."""
    left: Tensor
    """Steps left in the episode, this one included, `[N]`."""
    presence: Tensor
    """How often an episode to come passes through each state, by the mean's plan, `[N, S]`."""
    gap: Tensor
    """What an action loses there against the best, by the mean, `[N, K, S]`."""
    use: Tensor
    """How often it is taken there, a share, `[N, K, S]`."""


class Plan(NamedTuple):
    """What N accounts expect of the rest of the episode."""

    quality: Tensor
    """What an action in a state is worth with the bonus, up to a constant, `[N, K, S]`."""
    worth: Tensor
    """What a state is worth, in deviations of the noise above the prior mean, `[N, S]`."""
    correction: Tensor
    """Added to the logits, `[N, K, S]`."""


class Planning(nn.Module):
    """The network. `decide` and `learn` are pure; everything remembered is in their arguments."""

    name = "planning"
    unused_inputs: frozenset[str] = frozenset()

    def __init__(self, sizes: PlanningSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.action_range = (sizes.actions, sizes.actions)
        D = sizes.width
        self.bonus = nn.Parameter(torch.tensor([-1.5, 0.0]))
        self.bonus_by_step = nn.Parameter(torch.zeros(sizes.episode))
        self.log_spread = nn.Parameter(torch.tensor(-2.0))
        self.temperature = nn.Parameter(torch.tensor([-1.0, 0.0, 0.0, 0.0]))
        self.see = nn.Linear(_STATE_ACTION_FEATURES, D)
        self.see_common = nn.Linear(_COMMON_FEATURES, D, bias=False)
        self.judge = nn.Linear(D, 2)
        self.value_inner = nn.Linear(_POOLED, D)
        self.value = nn.Linear(D, 1)
        with torch.no_grad():
            self.judge.weight.mul_(0.1)
            self.judge.bias.zero_()
            self.value.weight.mul_(0.1)
            self.value.bias.zero_()

    def blank(self, batch: int, actions: int) -> tuple[Tensor, Tensor]:
        """Nothing seen, at an episode's start: shared `[B, 1 + S]`, rows `[B, K, S (S + 3)]`.

        Shared is the step in the episode, and how many episodes started where. A row holds, one
        after another, the transitions counted `[S, S']`, the rewards counted `[S]`, their sums
        `[S]`, and where this action was taken last if what it led to is not known yet, `[S]`.
        """
        S = self.sizes.context
        return torch.zeros(batch, 1 + S), torch.zeros(batch, actions, S * (S + 3))

    def decide(
        self,
        shared: Tensor,
        rows: Tensor,
        context: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
        action_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Probabilities `[B, K]`, exactly 0 where masked, and value `[B]`. Writes nothing."""
        posterior = self._posterior(shared, rows, context, action_mask)
        plan = self._plan(posterior, action_mask, horizon_left, _most(posterior, self.sizes))
        logits = self._logits(plan, posterior, context, action_mask, horizon_left)
        pool = self._pool(plan, posterior, context, action_mask, horizon_left)
        return torch.softmax(logits, -1), self.value_of(pool)

    def learn(
        self,
        shared: Tensor,
        rows: Tensor,
        context: Tensor,
        action: Tensor,
        reward: Tensor,
        done: Tensor,
        action_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The memory with one interaction folded in: sums of products, no trained weight.

        The context says what the interaction before led to, whose action's row it completes. After
        the end of an episode nothing was led to.
        """
        counts, visits, sums, pending = self._parts(rows)
        counts = counts + pending[..., None] * context[:, None, None, :]
        actions = torch.arange(self.sizes.actions)
        served = (action[:, None] == actions).to(rows.dtype)[..., None] * context[:, None, :]
        visits = visits + served
        sums = sums + served * reward[:, None, None]
        pending = served * (1.0 - done)[:, None, None]
        next_rows = torch.cat([counts.flatten(2), visits, sums, pending], -1)
        step = (shared[:, :1] + 1.0) * (1.0 - done)[:, None]
        return torch.cat([step, _starts(shared, context)], -1), next_rows

    def logits(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """Log-probabilities up to a constant, `[T', B, K]` for each record."""
        return [self._over(record, times, self._logits) for record in records]

    forward = logits

    def linearised(
        self, records: Sequence[Record], times: Tensor, parameters: Mapping[str, nn.Parameter]
    ) -> Linearised:
        """The logits of these steps, with their derivatives by these parameters."""
        return differentiated(self, (records, times), parameters)

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """What the value is read from, `[T', B, P]` for each record."""
        return [self._over(record, times, self._pool) for record in records]

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from a pool `[..., P]`."""
        return torch.as_tensor(self.value(torch.tanh(self.value_inner(pool))).squeeze(-1))

    def value_parameters(self) -> list[nn.Parameter]:
        """The value head alone: trained apart from the policy, by regression."""
        return [*self.value_inner.parameters(), *self.value.parameters()]

    def _parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """counts `[..., K, S, S']`, visits, sums and pending `[..., K, S]` of rows."""
        S = self.sizes.context
        counts, visits, sums, pending = torch.split(rows, [S * S, S, S, S], -1)
        return counts.reshape(*visits.shape, S), visits, sums, pending

    def _posterior(
        self, shared: Tensor, rows: Tensor, context: Tensor, action_mask: Tensor
    ) -> Posterior:
        """What the memory and the present state, which completes a transition, say."""
        counts, visits, sums, pending = self._parts(rows)
        counts = counts + pending[..., None] * context[:, None, None, :]
        left = torch.clamp(self.sizes.episode - shared[:, 0], 1.0, float(self.sizes.episode))
        # What no interaction could have left behind must still give probabilities.
        counts = torch.clamp_min(counts, 0.0) + 1.0
        visits = torch.clamp_min(visits, 0.0)
        total = counts.sum(-1)
        mean = sums * self.sizes.reward_scale / (visits + 1.0)
        model = counts / total[..., None]
        starts = torch.clamp_min(_starts(shared, context), 0.0) + 1e-6
        episode = self._episode(mean, model, starts / starts.sum(-1, keepdim=True), action_mask)
        return Posterior(model, total, mean, visits, left, *episode)

    def _episode(
        self, mean: Tensor, model: Tensor, starts: Tensor, action_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Presence, gap and use (see Posterior) in a whole episode planned on the mean.

        It is planned without a bonus, so no weight has a part in it. What is known of states where
        one will not be, or of actions that one will not take, is worth little.
        """
        barred = ~action_mask[..., None]
        flat = model.flatten(1, 2)
        ahead = torch.zeros_like(mean[:, 0])
        gaps = []
        for _ in range(self.sizes.episode):
            quality = mean + (flat @ ahead[..., None]).view(mean.shape)
            best = quality.masked_fill(barred, -torch.inf).amax(1, keepdim=True)
            gaps.append(best - quality)
            ahead = best[:, 0] - best[:, 0].amax(-1, keepdim=True)
        here, presence = starts, torch.zeros_like(starts)
        lost, used = torch.zeros_like(mean), torch.zeros_like(mean)
        for gap in reversed(gaps):
            choice = torch.softmax((-gap / _SOFTNESS).masked_fill(barred, -torch.inf), 1)
            taken = here[:, None] * choice
            presence, used, lost = presence + here, used + taken, lost + here[:, None] * gap
            here = (taken.flatten(1)[:, None] @ flat)[:, 0]
        often = presence[:, None]
        return presence, lost / often, used / often

    def _plan(
        self,
        posterior: Posterior,
        action_mask: Tensor,
        horizon_left: Tensor,
        most: int,
        together: bool = False,
    ) -> Plan:
        """Backward induction over the steps left, `most` at most, on the posterior mean.

        `together` says that everyone has `most` steps left.

        A bonus in proportion to the posterior's deviation, of mean reward and of the next state's
        value, is added to every reward: what is worth trying looks better than it is.
        """
        mean, model, total = posterior.mean, posterior.model.flatten(1, 2), posterior.total
        judged = self._judge(posterior, horizon_left)
        bonus = torch.exp(
            judged[..., 0] + (self.bonus[0] + self.bonus[1] * horizon_left[:, 1])[:, None, None]
        )
        reward_variance = 1.0 / (1.0 + posterior.visits)
        barred = ~action_mask[..., None]
        left = posterior.left[:, None]
        by_step = torch.exp(self.bonus_by_step)
        spread = torch.exp(self.log_spread)
        quality = mean + bonus * by_step[0] * torch.sqrt(reward_variance)
        best = quality.masked_fill(barred, -torch.inf).amax(1)
        floor = best.amax(-1)
        best = best - floor[:, None]
        for step in range(2, most + 1):
            reached = model @ torch.stack([best, best * best], -1)
            led, square = reached.view(*mean.shape, 2).unbind(-1)
            variance = torch.clamp_min(square - led * led, 0.0) / (total + 1.0)
            deviation = torch.sqrt(reward_variance + spread * variance)
            deeper = mean + bonus * by_step[step - 1] * deviation + led
            ahead = deeper.masked_fill(barred, -torch.inf).amax(1)
            top = ahead.amax(-1)
            if together:
                quality, best, floor = deeper, ahead - top[:, None], floor + top
                continue
            goes_on = step <= left
            quality = torch.where(goes_on[..., None], deeper, quality)
            best = torch.where(goes_on, ahead - top[:, None], best)
            floor = floor + torch.where(goes_on[:, 0], top, torch.zeros_like(top))
        return Plan(quality, floor[:, None] + best, judged[..., 1])

    def _judge(self, posterior: Posterior, horizon_left: Tensor) -> Tensor:
        """(log of the bonus's factor, correction of the logit), `[N, K, S, 2]`."""
        visits, mean = posterior.visits, posterior.mean
        of_state = visits.sum(1, keepdim=True).expand_as(visits)
        best = mean.amax(1, keepdim=True)
        features = [
            torch.log1p(visits) / 5.0,
            torch.rsqrt(1.0 + visits),
            mean,
            mean - best,
            torch.log1p(of_state) / 7.0,
            torch.log(posterior.presence)[:, None].expand_as(visits),
            posterior.gap,
            torch.tanh(posterior.gap * torch.sqrt(1.0 + visits) / 4.0),
            posterior.use,
        ]
        common = [horizon_left, (posterior.left / self.sizes.episode)[:, None]]
        inner = self.see(torch.stack(features, -1))
        inner = inner + self.see_common(torch.cat(common, -1))[:, None, None, :]
        return torch.as_tensor(self.judge(torch.tanh(inner)))

    def _logits(
        self,
        plan: Plan,
        posterior: Posterior,
        context: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
    ) -> Tensor:
        """Logits `[N, K]` of the actions in the present state, −inf where masked."""
        here = context[:, None, :]
        common = torch.cat([horizon_left, (posterior.left / self.sizes.episode)[:, None]], -1)
        log_temperature = self.temperature[0] + common @ self.temperature[1:]
        quality = (plan.quality * here).sum(-1) * torch.exp(-log_temperature)[:, None]
        logits = quality + (plan.correction * here).sum(-1)
        return logits.masked_fill(~action_mask, -torch.inf)

    def _pool(
        self,
        plan: Plan,
        posterior: Posterior,
        context: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
    ) -> Tensor:
        """What the value is read from, `[N, P]`."""
        visits = posterior.visits
        found = [
            (plan.worth * context).sum(-1) / posterior.left,
            plan.worth.mean(-1) / posterior.left,
            posterior.left / self.sizes.episode,
            torch.rsqrt(1.0 + visits).mean((1, 2)),
            posterior.mean.amax(1).mean(-1),
        ]
        return torch.cat([horizon_left, torch.stack(found, -1)], -1)

    def _over(self, record: Record, times: Tensor | None, read: Callable[..., Tensor]) -> Tensor:
        """What `read` says at the wanted steps of a record, `[T', B, ...]`.

        Every moment is planned for alone; those with as many steps left in their episode together.
        """
        wanted = torch.arange(record.steps) if times is None else times
        context = record.context[wanted].flatten(0, 1)
        mask = record.action_mask.repeat(wanted.numel(), 1)
        horizon = record.horizon_left[wanted].flatten(0, 1)
        posterior = self._recall(record, times)
        parts, places = [], []
        for left in sorted(set(posterior.left.tolist())):
            same = torch.nonzero(posterior.left == left).squeeze(1)
            for place in torch.split(same, _MOMENTS_AT_ONCE):
                some = Posterior(*(part[place] for part in posterior))
                plan = self._plan(some, mask[place], horizon[place], int(left), together=True)
                parts.append(read(plan, some, context[place], mask[place], horizon[place]))
                places.append(place)
        order = torch.argsort(torch.cat(places))
        found = torch.cat(parts)[order]
        return found.view(wanted.numel(), record.trials, *found.shape[1:])

    @torch.no_grad()
    def _recall(self, record: Record, times: Tensor | None) -> Posterior:
        """The posteriors at the wanted steps of a record, `[T' B, ...]`.

        No weight has a part in them, so they are found once for a record and the same `times`.
        """
        kept = _RECALLED.get(record)
        if kept is not None and kept[0] is times:
            return kept[1]
        everything = torch.arange(record.steps)
        context = record.context[everything if times is None else times].flatten(0, 1)
        learned = record.learned(times)
        memories = self._memories(record, everything if learned is None else learned)
        mask = record.action_mask.repeat(len(context) // record.trials, 1)
        posterior = self._posterior(*memories, context, mask)
        _RECALLED[record] = (times, posterior)
        return posterior

    def _memories(self, record: Record, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Memories at the wanted positions: shared `[T' B, 1 + S]` and rows `[T' B, K, H]`."""
        shared, rows = self.blank(record.trials, record.action_mask.shape[1])
        all_shared = shared.new_empty(wanted.numel(), *shared.shape)
        all_rows = rows.new_empty(wanted.numel(), *rows.shape)
        last = int(wanted.max())
        places: dict[int, list[int]] = {}
        for place, t in enumerate(wanted.tolist()):
            places.setdefault(t, []).append(place)
        for t in range(last + 1):
            for place in places.get(t, ()):
                all_shared[place], all_rows[place] = shared, rows
            shared, rows = self.learn(
                shared,
                rows,
                record.context[t],
                record.action[t],
                record.reward[t],
                record.done[t],
                record.action_features,
            )
        return all_shared.flatten(0, 1), all_rows.flatten(0, 1)


def _starts(shared: Tensor, context: Tensor) -> Tensor:
    """How many episodes started where, the present one included, `[B, S]`."""
    starting = (shared[:, :1] < 0.5).to(context.dtype)
    return shared[:, 1:] + starting * context


def _most(posterior: Posterior, sizes: PlanningSizes) -> int:
    """How many steps to plan; a graph plans a whole episode, whatever is left of it."""
    if torch.compiler.is_exporting():
        return sizes.episode
    return int(posterior.left.max())
