"""A recipe is strictly typed: what is wrong in it is named before any work, with the nearest right word."""

import inspect
from pathlib import Path
from typing import get_args

import pytest

from wsi_mivpg.captioner.configuration import KNOWN_ADAPTERS, TRAINS
from wsi_mivpg.errors import RecipeError
from wsi_mivpg.mivpg import MivpgConfig
from wsi_mivpg.training.recipe import as_yaml, load_recipe
from wsi_mivpg.training.settings import AdapterSettings, ModelSettings

RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"
SHIPPED = RECIPES / "demo.yaml"


def test_the_shipped_recipe_is_valid_and_marked_as_a_demonstration() -> None:
    recipe = load_recipe(SHIPPED)
    assert recipe.model.demonstration
    assert [cohort["name"] for cohort in recipe.data.cohorts] == ["rendered", "lung"]


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_recipe_is_valid_and_reads_back_the_same_when_it_is_spelled_out(
    file: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(file)
    assert recipe.name == file.stem
    (tmp_path / "resolved.yaml").write_text(as_yaml(recipe))
    assert load_recipe(tmp_path / "resolved.yaml").model_dump() == recipe.model_dump()
    if recipe.model.from_blip2 is None:  # else what is not stated comes from there
        assert "csa_carry" in (tmp_path / "resolved.yaml").read_text()  # a default that no recipe states


def test_overrides_replace_single_settings() -> None:
    recipe = load_recipe(SHIPPED, ["optim.steps=3", "model.trains=adapter", "seed=9", "data.manifest=cases.csv"])
    assert (recipe.optim.steps, recipe.model.trains, recipe.seed) == (3, "adapter", 9)
    assert recipe.data.manifest == [Path("cases.csv")]
    assert recipe.optim.batch_size == load_recipe(SHIPPED).optim.batch_size


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.step=3", "optim.step: there is no such setting; did you mean optim.steps?"),
        ("model.mivpg.csa_cary=reset", r"did you mean model\.mivpg\.csa_carry\?"),
        ("batch_size=2", r"batch_size: there is no such setting; did you mean .*\.batch_size\?"),
        ("optim.zzz=2", r"optim has steps, epochs, batch_size"),
        ("zzz=2", "a recipe has name, seed, data, model"),
        ("optim.steps=many", r"optim\.steps: .*'many'"),
        ("optim.steps=0", r"optim\.steps"),
        ("optim.epochs=2", "steps or epochs, not both"),
        ("optim.warmup_ratio=0.1", "warmup_steps or warmup_ratio"),
        ("model.adapter=mvipg", "'mivpg'"),
        ("precision=fp8", "precision"),
        ("steps", "not key=value"),
        ("name.first=a", "not a section"),
    ],
)
def test_a_wrong_setting_is_named(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(SHIPPED, [override])


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"missing\.yaml"):
        load_recipe(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match="no settings"):
        load_recipe(tmp_path / "list.yaml")


def test_a_recipe_can_say_all_that_the_adapter_can_be() -> None:
    possible = inspect.signature(MivpgConfig.__init__).parameters.keys() - {"self", "kwargs"}
    assert AdapterSettings.model_fields.keys() == possible - {"input_dim"}  # which the bags decide
    fields = ModelSettings.model_fields
    assert set(get_args(fields["adapter"].annotation)) == set(KNOWN_ADAPTERS)
    assert set(get_args(fields["trains"].annotation)) == set(TRAINS)
