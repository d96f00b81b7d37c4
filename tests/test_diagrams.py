"""Layer tables and diagrams: golden numbers for the article's networks, arrows for branching ones."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bonsaigan import diagrams
from bonsaigan.config import Size
from bonsaigan.diagrams import INPUT, LayerRow, composite, layer_table, to_text, write_diagrams
from bonsaigan.models.article import ArticleDiscriminator, ArticleGenerator

SIZE = Size.parse("64")


def brief(rows: list[LayerRow]) -> list[tuple[str, tuple[int, ...], int]]:
    return [(row.name, row.shape, row.parameters) for row in rows if row.parameters]


def test_the_article_s_generator() -> None:
    rows = layer_table(ArticleGenerator(size=SIZE), torch.zeros(1, 100))
    assert brief(rows) == [
        ("dense", (8192,), 827_392),
        ("up_1", (128, 16, 16), 262_272),
        ("up_2", (256, 32, 32), 524_544),
        ("up_3", (512, 64, 64), 2_097_664),
        ("to_picture", (3, 64, 64), 38_403),
    ]
    assert [row.inputs for row in rows[1:]] == [(row.name,) for row in rows[:-1]]
    assert rows[3].kind == "ConvTranspose2d"
    assert rows[3].detail == "4×4, stride 2"


def test_the_article_s_discriminator() -> None:
    rows = layer_table(ArticleDiscriminator(size=SIZE), torch.zeros(1, 3, 64, 64))
    assert brief(rows) == [
        ("down_1", (64, 32, 32), 3_136),
        ("down_2", (128, 16, 16), 131_200),
        ("down_3", (128, 8, 8), 262_272),
        ("down_4", (128, 4, 4), 262_272),
        ("dense", (1,), 2_049),
    ]
    assert [row.inputs for row in rows[1:]] == [(row.name,) for row in rows[:-1]]


def test_combined_model_shows_what_is_frozen() -> None:
    generator = ArticleGenerator(width=8, size=SIZE)
    discriminator = ArticleDiscriminator(width=8, size=SIZE).requires_grad_(False)
    whole = composite(lambda z: discriminator(generator(z)), generator=generator, discriminator=discriminator)
    rows = layer_table(whole, torch.zeros(2, 100))
    by_name = {row.name: row for row in rows}
    assert by_name["discriminator.down_1"].inputs == ("generator.tanh",)
    assert by_name["discriminator.down_1"].trainable == 0
    assert by_name["generator.up_1"].trainable == by_name["generator.up_1"].parameters
    text = to_text(rows, "DCGAN")
    total = sum(p.numel() for p in whole.parameters())
    frozen = sum(p.numel() for p in discriminator.parameters())
    assert f"Parameters {total:,}: {total - frozen:,} trained, {frozen:,} frozen" in text
    assert "cluster_generator" in diagrams.draw(rows, title="DCGAN").source


class Branching(nn.Module):
    """Two ways that meet in a sum, one layer used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).requires_grad_(False)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))
        self.last = nn.Conv2d(4, 2, 1)
        self.idle = nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.features(x)
        y = self.left(x) * 2 + self.right(x).sigmoid()
        return [self.last(self.drop(y)), self.left(x)]


def test_arrows_follow_sums_and_products() -> None:
    network = Branching().train()
    rows = {row.name: row for row in layer_table(network, torch.zeros(1, 3, 8, 8))}
    assert rows["drop"].inputs == ("left", "right")
    assert rows["last"].inputs == ("drop",)
    assert rows["left"].inputs == rows["right"].inputs == ("features.2",)
    assert rows["features.0"].inputs == (INPUT,)
    assert rows["idle"].shape == ()
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in network.parameters())
    assert all(module.training for module in network.modules())  # left as it was
    assert not network.left._forward_hooks


def test_a_large_part_can_be_merged() -> None:
    rows = {row.name: row for row in layer_table(Branching(), torch.zeros(1, 3, 8, 8), merge=["features"])}
    assert rows["features"].inputs == (INPUT,)
    assert rows["features"].parameters == 16 + 20
    assert rows["features"].trainable == 0
    assert rows["left"].inputs == ("features",)
    assert "features.0" not in rows
    whole = composite(lambda x: branching(x), branching=(branching := Branching()))
    names = [row.name for row in layer_table(whole, torch.zeros(1, 3, 8, 8), merge=["branching.features"])]
    assert names[:3] == [INPUT, "branching.features", "branching.left"]
    assert "several" in to_text(list(rows.values()), "branching")


def test_a_layer_that_is_used_again_after_a_later_one() -> None:
    twice = nn.ReLU()
    rows = layer_table(
        nn.Sequential(nn.Linear(2, 2), twice, nn.Linear(2, 2), twice), torch.zeros(1, 2), merge=["x"]
    )
    assert {row.name: row.inputs for row in rows}["1"] == ("0", "2")


def test_no_gradient_falls_back_to_the_order_of_calls() -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    rows = layer_table(Plain(), torch.zeros(1, 3))
    assert [row.inputs for row in rows] == [(), (INPUT,), ("layers.0",)]


@pytest.mark.skipif(not diagrams.dot_found(), reason="the Graphviz program `dot` is not installed")
def test_pictures(tmp_path: Path) -> None:
    network = ArticleDiscriminator(width=4, size=Size.parse("32"))
    written = write_diagrams({"discriminator": (network, [torch.zeros(1, 3, 32, 32)])}, tmp_path / "new")
    assert [p.name for p in written] == ["discriminator.dot", "discriminator.svg", "discriminator.png"]
    drawn = "".join(ElementTree.parse(written[1]).getroot().itertext())
    for row in layer_table(network, torch.zeros(1, 3, 32, 32)):
        assert row.name in drawn
    assert "4 × 16 × 16" in drawn
    with Image.open(written[2]) as image:
        assert image.height > 800


def test_without_graphviz_only_dot_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert not diagrams.dot_found()
    network = nn.Sequential(nn.Linear(2, 3))
    written = write_diagrams({"tiny": (network, [torch.zeros(1, 2)])}, tmp_path)
    assert [p.name for p in written] == ["tiny.dot"]
    assert "Linear" in written[0].read_text(encoding="utf-8")
