"""Settings: what is misspelt is named, with its neighbours, before anything runs."""

from importlib.resources import files

import pytest
from hydra import compose, initialize_config_module

from embodied.bench.experiment import check_policy
from embodied.cli.cloning_settings import make_experiment, unused_settings
from embodied.cli.config import compose_config, given_names, groups, identity
from embodied.cli.multirun import combinations
from embodied.cli.settings import resolve_device, resolve_workers
from embodied.core.errors import UsageError

VERBS = ("train", "evaluate", "collect", "pretrain")


@pytest.mark.parametrize("verb", VERBS)
def test_every_yaml_composes(verb):
    assert compose_config(verb, [])


def test_every_group_option_composes():
    assert set(groups()) == {"env", "policy", "objective", "suite"}
    with initialize_config_module("embodied.conf", version_base="1.3"):
        for verb in VERBS:
            text = files("embodied.conf").joinpath(f"{verb}.yaml").read_text()
            for group, options in groups().items():
                for option in options if f"- {group}: " in text else []:
                    compose(verb, overrides=[f"{group}={option}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tsak=x", "unknown setting of embodied train 'tsak': did you mean task?"),
        ("env=metawrld", "unknown env 'metawrld': did you mean metaworld?"),
        ("train.stepz=3", "did you mean train.steps"),
        ("policy.haed=mlp", "did you mean policy.head"),
        ("seed=1,2", "several values need -m"),
        ("hammer-v3", "'hammer-v3' is not a setting: write name=value"),
        ("--verbose", "unknown option '--verbose'"),
        ("seed=[1", "cannot be read"),
        ("seed=abc", "seed must be a whole number, got 'abc'"),
        ("seed=1.5", "seed must be a whole number, got 1.5"),
        ("resume=maybe", "resume must be true or false, got 'maybe'"),
        ("train.learning_rate=fast", "train.learning_rate must be a finite number, got 'fast'"),
        ("train.learning_rate=nan", "train.learning_rate must be a finite number, got nan"),
        ("policy.hidden=256", "policy.hidden must be a list, '[a,b]', got 256"),
        ("seed=[1]", "seed must be a whole number, got [1]"),
        ("train=3", "train must be a group of settings, got 3"),
        ("train.learning_rate=null", "train.learning_rate must be a finite number, got null: leave it out for 0.001"),
        ("policy.head=null", "policy.head must be a name, got null: leave it out for mlp"),
        ("collect.seed=null", "collect.seed must be a whole number, got null: leave it out for 0"),
    ],
)
def test_wrong_settings_say_what_is_right(override, message):
    with pytest.raises(UsageError) as error:
        compose_config("train", [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=hamer-v3", "unknown task of metaworld 'hamer-v3': did you mean hammer-v3"),
        ("camera=corner9", "unknown camera"),
        ("policy.head=conf", "did you mean conv"),
        ("demos=0", "demos must be a whole number of at least 1, got 0"),
        ("evaluate.selection_episodes=-1", "evaluate.selection_episodes must be in [0, 1000], got -1"),
        ("evaluate.selection_episodes=1001", "evaluate.selection_episodes must be in [0, 1000], got 1001"),
        ("seed=1000", "seed must be in [0, 1000), got 1000"),
        ("episodes=1001", "episodes must be in [1, 1000], got 1001"),
        ("collect.seed=1000000", "collect.seed must be in [0, 999975), got 1000000"),
        ("device=gpu", "unknown device 'gpu'"),
        ("workers=-1", "workers must be a whole number of at least 0, got -1"),
        ("workers=abc", "workers must be a whole number of at least 0, got 'abc'"),
        ("cache_gb=0", "cache_gb must be a positive number, got 0"),
        ("cache_gb=lots", "cache_gb must be a finite number, got 'lots'"),
        ("env.horizon=501", "horizon must be in [1, 500], got 501"),
        ("collect.expert=scriptd", "unknown collect.expert of metaworld 'scriptd': did you mean scripted?"),
        ("collect.noise=-0.1", "collect.noise must be at least 0, got -0.1"),
        ("train.steps=3", "train.checkpoints must be in [1, train.steps=3], got 4"),
        ("train.learning_rate=0.0", "train.learning_rate must be positive"),
        ("train.warmup_steps=2000", "train.warmup_steps must be a whole number below train.steps=2000, got 2000"),
        ("train.warmup_steps=-1", "train.warmup_steps must be a whole number below train.steps=2000, got -1"),
        ("train.clip=0", "train.clip must be a positive number or null, got 0"),
        ("train.clip=norm", "train.clip must be a positive number or null, got 'norm'"),
        ("train.precision=bf61", "unknown train.precision 'bf61': did you mean bf16?"),
        ("env.render=shiny", "unknown render 'shiny'"),
    ],
)
def test_wrong_values_say_what_is_right(override, message):
    with pytest.raises(UsageError) as error:
        make_experiment(compose_config("train", [override]))
    assert message in str(error.value)


def test_null_stays_where_it_says_something():
    assert compose_config("train", ["cache_gb=null", "policy.bottleneck=null"]).policy.bottleneck is None
    assert compose_config("train", ["policy=ppo", "policy.value_clip=null"]).policy.value_clip is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["policy.head=gmm", "policy.hidden=[64]"],
            "policy.hidden is of mlp and conv: it changes nothing of policy.head=gmm, whose sizes are "
            "policy.head_sizes.gmm",
        ),
        (["policy.codebook_share=0.1"], "policy.codebook_share is of vq_bet: it changes nothing of policy.head=mlp"),
        (["policy.head=gmm"], None),
        (["policy.hidden=[64]"], None),
        (["policy=ppo"], None),
    ],
)
def test_settings_of_another_head_are_noted(overrides, message):
    noted = unused_settings(compose_config("train", overrides), given_names(overrides))
    assert noted == ([] if message is None else [message])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder=scratch", "policy.views={count: 2}"], "policy.views are of cached .* encoder=scratch has none"),
        (["encoder=pixels", "policy.encoder_learning_rate=1e-5"], "nothing of encoder=pixels learns here; set"),
    ],
)
def test_settings_without_an_effect_are_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        check_policy(make_experiment(compose_config("train", overrides)))


def test_encoder_path_needs_no_quotes():
    assert compose_config("train", ["encoder=path=/some where/x_1.2"]).encoder == "/some where/x_1.2"
    assert compose_config("train", ["encoder=hf:org/model-small"]).encoder == "hf:org/model-small"


def test_identity_leaves_out_what_changes_no_result():
    plain = identity(compose_config("train", []))
    assert identity(compose_config("train", ["resume=true", "workers=3"])) == plain
    assert identity(compose_config("train", ["seed=3"])) != plain
    assert set(plain["train"]) == {"steps", "batch_size", "learning_rate", "weight_decay", "checkpoints"}  # as at first
    assert identity(compose_config("train", ["train.clip=1"])) != plain


def test_sweeps_are_multiplied_out():
    assert combinations(["seed=0,1", "task=hammer-v3", "demos=range(5,7)"]) == [
        ["seed=0", "task=hammer-v3", "demos=5"],
        ["seed=0", "task=hammer-v3", "demos=6"],
        ["seed=1", "task=hammer-v3", "demos=5"],
        ["seed=1", "task=hammer-v3", "demos=6"],
    ]


def test_devices_and_workers():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    assert 1 <= resolve_workers(None) <= 8
    assert resolve_workers(0) == 0
