"""The state machine, for every mode and every combination of signals."""

from itertools import product

import pytest

from embodied.real_robot.safety.modes import MODES, RULES, Mode, Signal, next_mode

ALL = [
    Signal(sum(signal.value for signal, on in zip(Signal, bits, strict=True) if on))
    for bits in product([False, True], repeat=len(Signal))
]
EVERY = [(mode, signals) for mode in MODES for signals in ALL]


def test_there_are_as_many_cases_as_there_should_be():
    assert len(EVERY) == 4 * 2**9


def test_a_pressed_stop_always_ends_in_fault():
    assert all(next_mode(mode, signals)[0] is Mode.FAULT for mode, signals in EVERY if Signal.ESTOP in signals)


def test_only_a_reset_leaves_a_fault_and_only_with_the_switch_let_go_and_nothing_wrong():
    for signals in ALL:
        after, _ = next_mode(Mode.FAULT, signals)
        wanted, unwanted = Signal.RESET | Signal.RESTING | Signal.RELEASED, Signal.ESTOP | Signal.TRIP | Signal.ENABLED
        may = wanted in signals and not signals & unwanted
        assert after is (Mode.HOLD if may else Mode.FAULT)


def test_the_robot_is_moved_only_with_everything_in_order():
    needed = Signal.LIVE | Signal.ENABLED | Signal.READY
    for mode, signals in EVERY:
        if next_mode(mode, signals)[0] is Mode.ACTIVE:
            assert needed in signals and not signals & (Signal.ESTOP | Signal.TRIP)
            assert mode is Mode.ACTIVE or (mode is Mode.HOLD and Signal.ADMITTED | Signal.RESTING in signals)


@pytest.mark.parametrize(
    ("lost", "after"),
    [
        (Signal.ENABLED, Mode.HOLD),
        (Signal.READY, Mode.HOLD),
        (Signal.LIVE, Mode.HOLD),
        (Signal.ADMITTED, Mode.ACTIVE),
        (Signal.RESTING, Mode.ACTIVE),
    ],
)
def test_an_active_robot_is_held_when_something_it_needs_is_lost(lost, after):
    fine = Signal.LIVE | Signal.ENABLED | Signal.READY | Signal.ADMITTED | Signal.RESTING
    assert next_mode(Mode.ACTIVE, fine & ~lost)[0] is after


def test_a_trip_of_an_active_robot_is_a_fault():
    assert all(next_mode(Mode.ACTIVE, signals)[0] is Mode.FAULT for signals in ALL if Signal.TRIP in signals)


def test_without_leave_to_move_shadow_is_never_left_but_for_the_stop():
    for signals in ALL:
        if Signal.LIVE not in signals and Signal.ESTOP not in signals:
            assert next_mode(Mode.SHADOW, signals)[0] is Mode.SHADOW


def test_a_switch_that_is_held_or_silent_from_the_start_moves_nothing():
    for signals in ALL:
        if Signal.ENABLED in signals or Signal.RELEASED not in signals:
            assert next_mode(Mode.SHADOW, signals)[0] in (Mode.SHADOW, Mode.FAULT)


def test_a_moving_robot_is_never_handed_from_hold_to_shadow():
    for signals in ALL:
        if Signal.RESTING not in signals:
            assert next_mode(Mode.HOLD, signals)[0] is not Mode.SHADOW


def test_every_change_has_a_reason_and_every_rule_is_needed():
    used = set()
    for mode, signals in EVERY:
        after, reason = next_mode(mode, signals)
        assert (reason is None) == (after is mode)
        used.add((mode, reason))
    assert used >= {(rule.source, rule.reason) for rule in RULES}
