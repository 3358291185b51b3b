"""A recipe is strictly typed: what is wrong in it is named before any work."""

from pathlib import Path

import pytest

from wsi_mivpg.errors import RecipeError
from wsi_mivpg.training.recipe import load_recipe

SHIPPED = Path(__file__).parents[2] / "pipelines" / "recipes" / "demo.yaml"


def test_the_shipped_recipe_is_valid_and_marked_as_a_demonstration() -> None:
    recipe = load_recipe(SHIPPED)
    assert recipe.model.demonstration
    assert [cohort["name"] for cohort in recipe.cohorts] == ["rendered", "lung"]


def test_overrides_replace_single_settings() -> None:
    recipe = load_recipe(SHIPPED, ["optim.steps=3", "model.lora=null", "seed=9"])
    assert (recipe.optim.steps, recipe.model.lora, recipe.seed) == (3, None, 9)
    assert recipe.optim.batch_size == load_recipe(SHIPPED).optim.batch_size


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.step=3", "optim.step"),
        ("optim.steps=many", "optim.steps"),
        ("optim.steps=0", "optim.steps"),
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
