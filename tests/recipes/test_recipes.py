"""The paper's three experiments, each from files in the published form to scores, on small stand-ins."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BlipImageProcessor

from tests.encoders.test_published_networks import tiny
from tests.extraction.test_image_tokens import bag_of, photograph
from tests.mivpg.blip2_checkpoints import WIDTH
from tests.recipes import stand_ins
from tests.recipes.tiny_models import IMAGE, write_blip2
from tests.tiny_captioner import write_tiny_language_model
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaptionerConfig, SlideCaptioner, read_case
from wsi_mivpg.cli.main import main
from wsi_mivpg.cohorts.case import read_manifest
from wsi_mivpg.encoders.published import load_spec
from wsi_mivpg.training.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"
PAPERS = ("patchgastric", "coco", "abo")
SHARES = ("--train", "0.6", "--val", "0.2", "--test", "0.2", "--seed", "1")
SHORT = [
    "optim.epochs=null", "optim.steps=4", "optim.batch_size=2", "optim.gradient_accumulation=1", "optim.save_every=4",
    "optim.warmup_steps=null", "optim.warmup_ratio=0.0", "selection.every=4", "selection.max_cases=2", "precision=fp32",
    "model.max_new_tokens=12", "model.max_report_tokens=512", "model.generation.num_beams=1",
]  # fmt: skip
"""What makes a recipe a test: few steps, short texts. The character tokenizer needs more tokens than the paper's."""
TWO_STEPS = ["optim.steps=2", "optim.batch_size=1", "optim.save_every=2", "selection.every=2"]
SMALL = [f"model.mivpg.{name}={size}" for name, size in {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "encoder_hidden_size": 24, "num_query_tokens": 4, "initializer_range": 0.15,
}.items()]  # fmt: skip


def done(program, *arguments):
    """Run the program as a user does; all must be done."""
    code, out, err = program(*arguments)
    assert code == 0, err
    return out


@pytest.fixture
def trained(run, tmp_path):
    """Return what trains a recipe on a manifest, writes the texts of its test split and scores them."""

    def train(recipe, manifest, *overrides):
        """Return the folder of the model."""
        chosen = [f"data.manifest={manifest}", *SHORT, *overrides]
        done(run, "train", RECIPES / f"{recipe}.yaml", *chosen, "--out", tmp_path / "out")
        texts, model = tmp_path / "texts.jsonl", tmp_path / "out" / "model"
        done(run, "generate", manifest, "--split", "test", "--model", model, "--out", texts)
        scored = json.loads(done(run, "evaluate", texts, manifest, "--split", "test", "--json"))
        tested = [case.case_id for case in read_manifest(manifest) if case.split == "test"]
        assert [json.loads(line)["case_id"] for line in texts.read_text().splitlines()] == tested
        assert scored["n_cases"] == len(tested) >= 1
        found = scored["systems"][0]["scores"]
        assert all(0 <= found[name]["value"] <= 10 for name in ("bleu_1", "bleu_4", "rouge_l"))
        log = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()]
        assert any("loss" in line or "train_loss" in line for line in log)
        return model

    return train


@pytest.fixture(scope="module")
def gastric_cases(tmp_path_factory):
    """Fifteen slides: extracted, imported, split by subtype and checked, once for all tests."""
    folder = stand_ins.patch_gastric(tmp_path_factory.mktemp("patchgastric"))
    patches = folder / "patches_captions" / "patches_captions"
    at = ["--patches", "--mpp", "0.5", "--tile-mpp", "0.67", "--force"]
    bags, cases, split = (folder / name for name in ("bags", "cases.jsonl", "split.jsonl"))
    captions = folder / "captions.csv"
    for arguments in (
        ["extract", patches, *at, "--encoder", "efficientnet-lite0", "--out", bags],
        ["cohorts", "import", "patchgastric", captions, "--bags", bags, "--out", cases],
        ["cohorts", "split", cases, *SHARES, "--stratify", "subtype", "--out", split],
        ["cohorts", "check", split],
    ):
        with pytest.raises(SystemExit) as leaving:
            main([str(one) for one in arguments])
        assert not leaving.value.code
    return split


def test_patch_gastric_with_blip2s_flan_t5(gastric_cases, trained, tmp_path):
    write_blip2(tmp_path / "blip2", "flan-t5")
    cases = read_manifest(gastric_cases)
    assert len(cases) == 15  # the sixteenth caption has no patch
    assert {len(FeatureBag.open(case.bag_paths[0])) for case in cases} == {3}
    model = trained("patchgastric", gastric_cases, f"model.from_blip2={tmp_path / 'blip2'}", "optim.lr_adapter=1e-3")
    captioner = SlideCaptioner.from_pretrained(model)
    assert captioner.config.trains == "adapter"
    assert captioner.language_model.config.model_type == "t5"


def test_patch_gastric_with_smollm2(gastric_cases, trained):
    overrides = ["model.from_blip2=null", "model.language_model=smollm2-135m-instruct", "model.max_new_tokens=4"]
    model = trained("patchgastric", gastric_cases, *overrides, *SMALL, "selection.metric=loss", *TWO_STEPS)
    assert json.loads((model / "config.json").read_text())["language_model"] == "smollm2-135m-instruct"


def test_coco_with_blip2s_opt(run, trained, tmp_path):
    folder = stand_ins.coco(tmp_path / "coco")
    chosen = ("--patch-tokens", "--encoder", "efficientnet-lite0")
    done(run, "extract", folder / "images", *chosen, "--out", tmp_path / "bags")
    cases = tmp_path / "coco.jsonl"
    done(run, "cohorts", "import", "coco", folder / "dataset_coco.json", "--bags", tmp_path / "bags", "--out", cases)
    first = read_manifest(cases)[0]
    assert (len(first.reports), first.split) == (2, "train")
    assert len(FeatureBag.open(first.bag_paths[0])) == 49
    write_blip2(tmp_path / "blip2", "opt")
    model = trained("coco", cases, f"model.from_blip2={tmp_path / 'blip2'}", "optim.lr_adapter=1e-3")
    captioner = SlideCaptioner.from_pretrained(model)
    kernels = [one for name, one in captioner.named_parameters() if "ppeg.conv" in name and name.endswith("weight")]
    assert kernels
    assert all(kernel.abs().max() > 0 for kernel in kernels)  # zero before training: the places were used


def test_abo_with_qwen(run, trained, tmp_path):
    folder = stand_ins.abo(tmp_path / "abo")
    chosen = ("--patch-tokens", "--encoder", "efficientnet-lite0")
    products, cases, split = (tmp_path / f"{name}.jsonl" for name in ("products", "cases", "split"))
    source = ["cohorts", "import", "abo", folder, "--captions", folder / "captions.csv"]
    done(run, *source, "--images", folder / "images" / "small", "--out", products)
    done(run, "extract", products, *chosen, "--out", tmp_path / "bags")
    done(run, *source, "--bags", tmp_path / "bags", "--out", cases)
    with_caption = sum(len(case.image_paths) for case in read_manifest(products))
    assert len(list((tmp_path / "bags").glob("*.h5"))) == with_caption < len(list(folder.rglob("*.jpg")))
    found = read_manifest(cases)
    assert sorted({len(case.bag_paths) for case in found}) == [2, 3]
    assert len(found) == 15  # the sixteenth product has no caption
    done(run, "cohorts", "split", cases, *SHARES, "--out", split)
    write_tiny_language_model(tmp_path / "qwen", "qwen3")
    overrides = ["model.from_blip2=null", f"model.language_model={tmp_path / 'qwen'}", *SMALL, "optim.lr_adapter=1e-3"]
    captioner = SlideCaptioner.from_pretrained(trained("abo", split, *overrides))
    assert captioner.config.adapter == "hierarchical"
    assert captioner.language_model.config.model_type == "qwen3"


@pytest.mark.parametrize("name", PAPERS)
def test_every_setting_of_the_papers_recipes_says_whose_it_is(name):
    for line in (RECIPES / f"{name}.yaml").read_text().splitlines():
        key, _, value = line.partition(":")
        is_setting = value.strip() and not line.startswith(("#", "name:")) and key.strip() not in ("manifest",)
        assert not is_setting or "# paper" in line or "# ours" in line, line


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_settings(name):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.model.from_blip2 == "Salesforce/blip2-flan-t5-xl"
    assert recipe.model.trains == "adapter"
    assert recipe.model.prompt == "a photo of"
    assert recipe.precision == "bf16"
    assert (recipe.optim.lr_adapter, recipe.optim.weight_decay, recipe.optim.betas) == (1e-5, 0.05, (0.9, 0.999))
    assert recipe.optim.epochs == {"patchgastric": 40, "coco": 25, "abo": 40}[name]
    assert recipe.model.adapter == ("hierarchical" if name == "abo" else "mivpg")
    assert recipe.model.mivpg.ppeg == ("grid" if name == "coco" else "none")


def test_a_file_goes_through_both_halves_as_through_transformers_blip2(tmp_path):
    """Before training, and with positions at hand, the text is the one that BLIP-2 writes about the picture."""
    theirs = write_blip2(tmp_path / "blip2", "opt")
    path = photograph(tmp_path / "photo.png")
    spec = tiny("blip2-eva-vit-g", WIDTH, tile_px=8, config=theirs.config.vision_config.to_diff_dict())
    encoder = load_spec(spec, weights=tmp_path / "blip2", precision="fp32", patch_tokens=True)
    bag = bag_of(path, encoder, tmp_path / "bags")
    config = CaptionerConfig(mivpg={"ppeg": "grid"}, prompt="a photo of", feature_dim=bag.feature_dim)
    captioner = SlideCaptioner.from_blip2(tmp_path / "blip2", config=config)
    assert captioner.config.mivpg["input_dim"] is None  # features of BLIP-2's own width enter unchanged

    processor = BlipImageProcessor(size={"height": 8, "width": 8})
    prompt = torch.tensor([[IMAGE] * 5 + captioner.prompt_ids])
    with torch.inference_mode():
        pixels = processor(Image.open(path), return_tensors="pt")["pixel_values"]
        wanted = theirs.generate(pixel_values=pixels, input_ids=prompt, max_new_tokens=8, do_sample=False)
    written = captioner.generate([read_case("photo", [bag])], max_new_tokens=8)[0]
    assert tuple(wanted[0, -len(written.token_ids) :].tolist()) == written.token_ids
