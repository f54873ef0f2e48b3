#!/usr/bin/env bash
# The frames that the default tokenizer of frames was trained on: sixteen tasks of Meta-World (MT10's among them), 64
# pixels, as they are and with other cameras, light and colours; scripted behaviour with random stretches.
# Usage: benchmarks/tokenizer_data.sh FOLDER [EPISODES [LOOKS]]
# EPISODES of each task as it is, and as many with looks of their own, 6 by default; then LOOKS more of each task, 60 by
# default, of which only the first 12 frames are kept: what a tokenizer has not seen in training is the look, not the
# pose. Looks come of seeds, so every task has other ones. Seeds start at 3000000 (embodied/bench/policy_episodes.py), so
# no demonstration or evaluation episode is among them. For frames alone: with noise actions are not the executed ones.
set -euo pipefail
folder=$1 episodes=${2:-6} looks=${3:-60}
collect() { # TASK VISUALS EPISODES SEED STORE [SETTING]
  embodied collect "task=$1" "env.visuals=$2" env.image_size=64 "episodes=$3" "collect.seed=$4" \
    collect.expert=mixed collect.only_successes=false collect.noise=0.2 workers=0 "store=$folder/$5" "${@:6}"
}
seed=3000000
for task in reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side \
  window-open window-close hammer assembly bin-picking coffee-button sweep-into handle-press; do
  collect "$task-v3" static "$episodes" 3000000 "$task-v3-static"
  seed=$((seed + 1000))
  collect "$task-v3" varied "$episodes" "$seed" "$task-v3-varied"
  collect "$task-v3" varied "$looks" "$((seed + 500))" "$task-v3-looks" env.horizon=12
done
