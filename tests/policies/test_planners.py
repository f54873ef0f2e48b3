"""CEM, MPPI and random shooting, on costs whose best plan is known."""

import math

import pytest
import torch

from embodied.core.errors import UsageError, UserError
from embodied.core.seeding import torch_generator
from embodied.policies.visual_planning.cem import CEM
from embodied.policies.visual_planning.mppi import MPPI
from embodied.policies.visual_planning.planners import PLANNERS, make_planner
from embodied.policies.visual_planning.sampling import Bounds, finite_costs, shaped_noise
from embodied.policies.visual_planning.shooting import Shooting

BOUNDS = Bounds(low=(-1.0, 0.0), high=(1.0, 4.0))
BEST = torch.tensor([[0.4, 3.0], [-0.7, 1.0], [0.1, 2.5]])  # (H, A)
FOUND = {
    "cem": CEM(samples=200, elites=10, iterations=8),
    "cem mean": CEM(samples=200, elites=10, iterations=8, momentum=0.15, answer="mean"),
    "cem colored": CEM(samples=200, elites=10, iterations=8, noise="colored", beta=1.0),
    "mppi": MPPI(samples=400, iterations=15, gamma=30.0, standardise=True, std=0.3),
}


def quadratic(best=BEST):
    return lambda actions: ((actions - best) / torch.tensor([1.0, 2.0])).square().sum(dim=(2, 3))


def draws(seed, environments, actions=BEST):
    """Noise of each environment by itself."""

    def draw(iteration, samples):
        rows = [torch_generator(seed, "noise", row, iteration) for row in environments]
        return torch.stack([torch.randn(samples, *actions.shape, generator=row) for row in rows])

    return draw


def start(environments=1):
    return torch.zeros(environments, *BEST.shape)


@pytest.mark.parametrize("planner", FOUND.values(), ids=FOUND.keys())
def test_a_planner_finds_the_best_plan_of_a_quadratic_cost(planner):
    plan = planner.plan(quadratic(), start(), BOUNDS, draws(0, [0]))
    assert torch.allclose(plan.actions[0], BEST, atol=0.12)
    assert quadratic()(plan.actions[:, None])[0, 0] < 0.02
    blind = Shooting(samples=planner.samples * planner.draws).plan(quadratic(), start(), BOUNDS, draws(0, [0]))
    assert quadratic()(plan.actions[:, None]) < 0.2 * quadratic()(blind.actions[:, None])  # as many candidates


@pytest.mark.parametrize("planner", [*FOUND.values(), Shooting(samples=50)])
def test_candidates_and_plans_stay_inside_the_bounds(planner):
    seen = []

    def score(actions):
        seen.append(actions)
        return -(actions.sum(dim=(2, 3)))  # as far as possible

    plan = planner.plan(score, torch.full((1, 3, 2), 9.0), BOUNDS, draws(0, [0]))
    for actions in [*seen, plan.actions]:
        assert ((actions >= torch.tensor(BOUNDS.low)) & (actions <= torch.tensor(BOUNDS.high))).all()
    if not isinstance(planner, Shooting):
        assert plan.actions.sum() > 0.75 * (3 * 5)


@pytest.mark.parametrize("planner", [*FOUND.values(), Shooting(samples=50)])
def test_environments_are_planned_for_together_as_by_themselves(planner):
    goals = torch.stack([BEST, BEST.flip(0), 0.5 * BEST])
    together = planner.plan(quadratic(goals[:, None]), start(3), BOUNDS, draws(3, [0, 1, 2]))
    for row in range(3):
        alone = planner.plan(quadratic(goals[row]), start(), BOUNDS, draws(3, [row]))
        assert torch.equal(alone.actions[0], together.actions[row])
        assert torch.equal(alone.cost[0], together.cost[row])
    again = planner.plan(quadratic(goals[:, None]), start(3), BOUNDS, draws(3, [0, 1, 2]))
    assert torch.equal(again.actions, together.actions)
    other = planner.plan(quadratic(goals[:, None]), start(3), BOUNDS, draws(4, [0, 1, 2]))
    assert not torch.equal(other.actions, together.actions)


def test_cem_moves_to_its_elites_with_momentum_and_a_floor():
    noise = torch.tensor([0.0, 1.0, 2.0, 3.0])[None, :, None, None]
    planner = CEM(samples=4, elites=2, iterations=1, std=0.2, momentum=0.25, noise="white", answer="mean")
    wide = Bounds(low=(-5.0,), high=(5.0,))
    seen = []

    def score(actions):
        seen.append(actions[0, :, 0, 0].tolist())
        return -actions[:, :, 0, 0]

    plan = planner.plan(score, torch.zeros(1, 1, 1), wide, lambda *_: noise.clone())
    assert seen[0] == [0.0, 1.0, 2.0, 3.0]  # std is 0.2 of the half range of 5
    assert plan.actions.item() == pytest.approx(0.75 * 2.5)
    stiff = CEM(samples=4, elites=1, iterations=2, std=0.2, floor=0.1, noise="white")
    seen.clear()
    stiff.plan(score, torch.zeros(1, 1, 1), wide, lambda *_: noise.clone())
    assert seen[1] == pytest.approx([3.0, 3.5, 4.0, 4.5])  # the deviation of one elite is 0, the floor 0.5


def test_mppi_weighs_by_exp_of_minus_gamma_cost():
    noise = torch.tensor([0.0, 1.0, -2.0])[None, :, None, None]
    wide = Bounds(low=(-2.0,), high=(2.0,))
    costs = torch.tensor([[0.0, 10.0, 30.0]])
    planner = MPPI(samples=3, gamma=0.05, std=0.5, noise="white")
    plan = planner.plan(lambda _: costs, torch.zeros(1, 1, 1), wide, lambda *_: noise.clone())
    weights = [1.0, math.exp(-0.5), math.exp(-1.5)]
    assert plan.actions.item() == pytest.approx((weights[1] - 2 * weights[2]) / sum(weights))
    scaled = MPPI(samples=3, gamma=1.0, std=0.5, noise="white", standardise=True)
    same = [
        scaled.plan(lambda _, s=s: s * costs, torch.zeros(1, 1, 1), wide, lambda *_: noise.clone()).actions.item()
        for s in (1.0, 1e-4)
    ]
    assert same[0] == pytest.approx(same[1])
    assert same[0] != pytest.approx(plan.actions.item())


def test_correlated_noise_is_vp2s_and_colored_noise_keeps_its_variance():
    white = torch.randn(20000, 16, 1, generator=torch_generator(0))
    correlated = shaped_noise(white, "correlated", 0.5)
    wanted = white[:, 0]
    assert torch.equal(correlated[:, 0], wanted)
    for step in range(1, 4):
        wanted = 0.5 * wanted + 0.5 * white[:, step]
        assert torch.allclose(correlated[:, step], wanted)
    assert correlated[:, -1].std().item() == pytest.approx(math.sqrt(1 / 3), rel=0.03)
    unit = shaped_noise(white, "correlated", 0.5, unit=True)
    assert unit.square().mean(dim=(0, 2)).tolist() == pytest.approx([1] * 16, rel=0.05)
    assert torch.allclose(shaped_noise(white, "colored", 0.0), white, atol=1e-5)
    colored = shaped_noise(white, "colored", 2.0)
    assert colored.square().mean().item() == pytest.approx(1, rel=0.02)
    jumps = [(noise[:, 1:] - noise[:, :-1]).square().mean() for noise in (white, colored)]
    assert jumps[1] < 0.5 * jumps[0]
    power = torch.fft.rfft(colored[..., 0]).abs().square().mean(dim=0)
    assert (power[2] / power[4]).item() == pytest.approx(4, rel=0.1)  # 1 / f^2
    odd = shaped_noise(white[:, :15], "colored", 1.0)
    assert odd.shape == (20000, 15, 1)
    assert odd.square().mean().item() == pytest.approx(1, rel=0.02)


def test_shooting_draws_uniformly_and_one_sample_is_any_action():
    seen = []

    def score(actions):
        seen.append(actions)
        return actions[..., 0, 0]

    Shooting(samples=4000).plan(score, start(), BOUNDS, draws(0, [0]))
    values = seen[0][0, :, 0, 1]
    assert torch.histc(values, bins=4, min=0, max=4).tolist() == pytest.approx([1000] * 4, rel=0.15)
    assert Shooting(samples=1).plan(score, start(), BOUNDS, draws(1, [0])).actions.shape == BEST[None].shape


def test_costs_that_are_no_numbers_are_never_chosen():
    costs = torch.tensor([[1.0, float("nan"), 3.0], [float("inf"), 0.5, 0.2]])
    assert finite_costs(costs).tolist() == [pytest.approx([1, 3, 3]), pytest.approx([0.5, 0.5, 0.2])]
    with pytest.raises(UserError, match="predicts no numbers"):
        finite_costs(torch.full((1, 2), float("nan")))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cme", {}, "unknown policy.planner 'cme': did you mean cem"),
        ("cem", {"gamma": 1.0}, "unknown option of policy.planner=cem 'gamma'"),
        ("cem", {"samples": 8, "elites": 9}, "elites of a planner must be at most its samples=8, got 9"),
        ("cem", {"samples": 2.5}, "samples of a planner must be a whole number"),
        ("cem", {"noise": "pink"}, "unknown noise of a planner 'pink'"),
        ("cem", {"noise": "correlated", "beta": 1.0}, r"beta of correlated noise must be in \[0, 1\), got 1.0"),
        ("cem", {"momentum": 1.0}, "momentum of a planner"),
        ("cem", {"answer": "bets"}, "did you mean best"),
        ("mppi", {"gamma": 0.0}, "std and gamma of a planner must be positive"),
        ("shooting", {"iterations": 2}, "unknown option of policy.planner=shooting 'iterations'"),
    ],
)
def test_settings_that_make_no_sense_are_explained(name, options, message):
    with pytest.raises(UsageError, match=message):
        make_planner(name, options, summed_pixels=False)


def test_mppis_gamma_goes_with_the_cost():
    pixels, other = (make_planner("mppi", {"gamma": None}, summed_pixels=each) for each in (True, False))
    assert (pixels.gamma, pixels.standardise, pixels.beta, pixels.samples) == (0.05, False, 0.5, 200)
    assert (other.gamma, other.standardise) == (5.0, True)
    assert set(PLANNERS) == {"cem", "mppi", "shooting"}
    with pytest.raises(UsageError, match="a planner searches between bounds"):
        Bounds(low=(-math.inf,), high=(1.0,))
