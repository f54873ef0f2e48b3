#!/usr/bin/env bash
# The frames that the default tokenizer of frames is trained on: sixteen tasks of Meta-World (MT10's among them), 64
# pixels, as they are and with other cameras, light and colours; scripted behaviour with random stretches.
# Usage: benchmarks/tokenizer_data.sh FOLDER [EPISODES]
# EPISODES of each task and look, 2 by default. Seeds start at 3000000 (embodied/bench/experiment.py), so no
# demonstration or evaluation episode is among them.
set -euo pipefail
folder=$1 episodes=${2:-2}
collect() {
  embodied collect "task=$1" "env.visuals=$2" env.image_size=64 "episodes=$episodes" collect.seed=3000000 \
    collect.expert=mixed collect.only_successes=false collect.noise=0.2 workers=0 "store=$folder/$1-$2"
}
for visuals in static varied; do
  for task in reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side \
    window-open window-close hammer assembly bin-picking coffee-button sweep-into handle-press; do
    collect "$task-v3" "$visuals"
  done
done
