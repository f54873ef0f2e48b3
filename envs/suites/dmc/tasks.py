"""The 28 tasks of the DeepMind Control Suite's benchmarking set, and when we call one done."""

from __future__ import annotations

INSTRUCTIONS = {
    "acrobot_swingup": "swing the two-link arm up and balance it on its tip",
    "acrobot_swingup_sparse": "swing the two-link arm up and hold its tip at the target",
    "ball_in_cup_catch": "swing the ball up and catch it in the cup",
    "cartpole_balance": "move the cart to keep the pole upright",
    "cartpole_balance_sparse": "keep the pole upright near the middle of the rail",
    "cartpole_swingup": "swing the pole up with the cart and keep it upright",
    "cartpole_swingup_sparse": "swing the pole up and hold it upright near the middle of the rail",
    "cheetah_run": "run forward as fast as possible",
    "finger_spin": "keep the spinner turning with the finger",
    "finger_turn_easy": "turn the spinner until its tip is in the large target",
    "finger_turn_hard": "turn the spinner until its tip is in the small target",
    "fish_swim": "swim to the target",
    "fish_upright": "turn upright in the water",
    "hopper_hop": "hop forward on one leg",
    "hopper_stand": "stand on one leg",
    "humanoid_run": "run on two legs with the humanoid",
    "humanoid_stand": "stand up with the humanoid",
    "humanoid_walk": "walk on two legs with the humanoid",
    "manipulator_bring_ball": "grasp the ball and bring it to the target",
    "pendulum_swingup": "swing the pendulum up and keep it upright",
    "point_mass_easy": "move the point mass to the target in the middle",
    "reacher_easy": "move the fingertip to the large target",
    "reacher_hard": "move the fingertip to the small target",
    "swimmer_swimmer15": "swim to the target with fifteen links",
    "swimmer_swimmer6": "swim to the target with six links",
    "walker_run": "run on two legs",
    "walker_stand": "stand upright on two legs",
    "walker_walk": "walk forward on two legs",
}
CORTEX_TASKS = ("walker_stand", "walker_walk", "reacher_easy", "cheetah_run", "finger_spin")

# Returns of strong agents that learnt from the state: TD-MPC2's released results (arXiv 2310.16828; the mean of its
# seeds at their last step); manipulator: D4PG, table 1 of the suite's paper (arXiv 1801.00690).
PUBLISHED_RETURNS = {
    "acrobot_swingup": 663,
    "ball_in_cup_catch": 984,
    "cartpole_balance": 998,
    "cartpole_balance_sparse": 977,
    "cartpole_swingup": 877,
    "cartpole_swingup_sparse": 850,
    "cheetah_run": 896,
    "finger_spin": 991,
    "finger_turn_easy": 982,
    "finger_turn_hard": 977,
    "fish_swim": 761,
    "hopper_hop": 449,
    "hopper_stand": 955,
    "humanoid_run": 603,
    "humanoid_stand": 906,
    "humanoid_walk": 900,
    "manipulator_bring_ball": 896,
    "pendulum_swingup": 838,
    "reacher_easy": 987,
    "reacher_hard": 982,
    "walker_run": 877,
    "walker_stand": 993,
    "walker_walk": 981,
}


def success_score(task: str) -> float:
    """The score from which an episode is a success: three quarters of the published return over 1000.

    Where we found no such return (acrobot_swingup_sparse, fish_upright, point_mass_easy and the swimmers) it is 0.5.
    The suite itself knows no success.
    """
    return round(0.75 * PUBLISHED_RETURNS[task] / 1000, 3) if task in PUBLISHED_RETURNS else 0.5
