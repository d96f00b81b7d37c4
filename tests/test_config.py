from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonsaigan.config import Budget, DataConfig, NetworkConfig, OptimizerConfig, Size, TrainConfig
from bonsaigan.errors import ConfigError


def make_config(**changes: object) -> TrainConfig:
    values = {
        "recipe": "projected",
        "data": DataConfig(source="photos", size=Size(width_px=96, height_px=64)),
        "channels": 3,
        "budget": Budget(steps=4),
        "batch": 4,
        "network": NetworkConfig(latent=16, width=64, discriminator_width=8),
        "optimizer": OptimizerConfig(generator_lr=2e-4, discriminator_lr=1e-4),
        "augment": ("flip", "colour"),
    }
    return TrainConfig(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def test_a_config_comes_back_equal_from_json() -> None:
    config = make_config()
    assert TrainConfig.from_json(config.to_json()) == config


@given(st.integers(2, 16), st.integers(2, 16))
def test_every_allowed_size_reads_back_from_its_text(width: int, height: int) -> None:
    size = Size(width_px=16 * width, height_px=16 * height)
    assert Size.parse(str(size)) == size


@pytest.mark.parametrize("text", ["", "65", "16", "272", "64x", "x64", "64x65", "-64", "64.0", "٦٤٤"])
def test_a_wrong_size_is_one_line_with_its_flag(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--size .*$") as caught:
        Size.parse(text)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=20,
    )
)
def test_any_json_is_a_config_or_one_of_our_errors(value: object) -> None:
    with pytest.raises(ConfigError):
        TrainConfig.from_json(json.dumps(value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("batch",), 1),
        (("batch",), "8"),
        (("batch",), True),
        (("channels",), 2),
        (("seed",), -1),
        (("precision",), "fp8"),
        (("data", "fit"), "bend"),
        (("data", "holdout"), 0.9),
        (("data", "unknown"), 1),
        (("budget", "minutes"), 3.0),
        (("optimizer", "generator_lr"), float("nan")),
        (("network", "width"), 10**9),
        (("components", "first_steps"), -1),
        (("components", "weight"), float("inf")),
    ],
)
def test_a_changed_value_out_of_its_limits_is_refused(path: tuple[str, ...], value: object) -> None:
    raw = json.loads(make_config().to_json())
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ConfigError):
        TrainConfig.from_json(json.dumps(raw))


def test_a_budget_has_exactly_one_measure() -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        Budget(minutes=1.0, steps=3)
    with pytest.raises(ConfigError, match="exactly one"):
        Budget()
    with pytest.raises(ConfigError, match="--minutes"):
        Budget(minutes=0.0)
