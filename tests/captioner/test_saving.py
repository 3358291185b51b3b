"""A saved model holds what was trained and names its base; it comes back as it was, offline, or says why not."""

import json
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.tiny_captioner import CHATML, tiny_base, tiny_config, write_tiny_language_model
from wsi_mivpg.captioner import CaptionerConfig, CaseBags, SlideCaptioner
from wsi_mivpg.captioner.language_models import find_language_model
from wsi_mivpg.errors import ModelError, OutputError

Bases = Callable[[str], Path]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def _moved(captioner: SlideCaptioner) -> SlideCaptioner:
    """Give every trained tensor another value, as training does."""
    with torch.no_grad():
        for tensor in captioner.trained_state().values():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return captioner.eval()


@pytest.mark.parametrize("family", ["llama", "opt", "flan-t5"])
@pytest.mark.parametrize("trains", ["adapter", "lora", "full"])
@pytest.mark.usefixtures("no_network")
def test_a_saved_model_comes_back_as_it_was_and_holds_what_was_trained_alone(
    tiny_base_of: Bases, tmp_path: Path, cases: list[CaseBags], family: str, trains: str
) -> None:
    captioner = _moved(SlideCaptioner.create(tiny_config(tiny_base_of(family), trains=trains)))
    captioner.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert stored.keys() == captioner.trained_state().keys()
    of_base = [name for name in stored if name.startswith("language_model.")]
    if trains == "full":
        own = {f"language_model.{name}" for name, _ in captioner.language_model.named_parameters()}
        assert set(of_base) == own  # tied ones once
    else:
        assert all(".lora_" in name for name in of_base)
        assert bool(of_base) == (trains == "lora")
    again = SlideCaptioner.from_pretrained(tmp_path)
    for name, tensor in captioner.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    one, two = captioner.generate(cases), again.generate(cases)
    assert [o.token_ids for o in one] == [o.token_ids for o in two]
    assert not any(module.training for module in again.modules())


def test_a_model_saved_in_half_precision_is_rounded_and_no_more(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    captioner = _moved(SlideCaptioner.create(tiny_config))
    captioner.save_pretrained(tmp_path, dtype=torch.float16)
    again = SlideCaptioner.from_pretrained(tmp_path)
    for name, tensor in captioner.trained_state().items():
        assert torch.equal(again.trained_state()[name], tensor.to(torch.float16).float()), name


def test_the_configuration_comes_back_whole(tiny_base_of: Bases, tmp_path: Path) -> None:
    config = tiny_config(
        tiny_base_of("llama"),
        generation={"num_beams": 3, "no_repeat_ngram_size": 4},
        max_report_tokens=77,
        lora={"r": 2, "target_modules": ["q_proj"]},
    )
    SlideCaptioner.create(config).save_pretrained(tmp_path)
    again = SlideCaptioner.from_pretrained(tmp_path).config
    own = [name for name in vars(config) if not name.startswith("_") and name != "transformers_version"]
    assert {name: getattr(again, name) for name in own} == {name: getattr(config, name) for name in own}
    assert again.lora["r"] == 2


def test_the_chat_template_of_the_training_is_kept(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tiny_language_model(base, chat=True)
    captioner = SlideCaptioner.create(tiny_config(base, prompt_template=None))
    assert captioner.config.prompt_template == CHATML
    captioner.save_pretrained(tmp_path / "model")
    (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }} in another way")
    assert SlideCaptioner.from_pretrained(tmp_path / "model").prompt_ids == captioner.prompt_ids


def test_another_base_model_is_refused(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    SlideCaptioner.create(tiny_config).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert len(settings["language_model_sha256"]) == 64
    settings["language_model_sha256"] = "0" * 64
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="give the same base model"):
        SlideCaptioner.from_pretrained(tmp_path)


def test_a_base_that_has_moved_is_found_where_it_is_said_to_be(
    tiny_config: CaptionerConfig, tmp_path: Path, cases: list[CaseBags]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_config.language_model, moved)
    captioner = SlideCaptioner.create(tiny_config).eval()
    captioner.config.language_model = str(tmp_path / "gone")
    captioner.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=r"cannot load the language model '.*gone'"):
        SlideCaptioner.from_pretrained(tmp_path / "model")
    texts = [one.text for one in captioner.generate(cases)]
    for given in (moved, tiny_base()):
        again = SlideCaptioner.from_pretrained(tmp_path / "model", language_model=given)
        assert [one.text for one in again.generate(cases)] == texts
    other = tmp_path / "other"
    write_tiny_language_model(other, "qwen2")
    with pytest.raises(ModelError, match="give the same base model"):
        SlideCaptioner.from_pretrained(tmp_path / "model", language_model=other)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], str]:
    """Return what puts a folder into the hub's cache, laid out as the hub's library does, and returns its commit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.HF_HUB_OFFLINE", True, raising=False)

    def put(folder: Path, name: str) -> str:
        commit = "5" * 40
        stored = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = stored / "snapshots" / commit
        (stored / "refs").mkdir(parents=True)
        (stored / "refs" / "main").write_text(commit)
        (stored / "blobs").mkdir()
        snapshot.mkdir(parents=True)
        for file in folder.iterdir():
            blob = stored / "blobs" / sha_of(file)
            shutil.copyfile(file, blob)
            (snapshot / file.name).symlink_to(blob)
        return commit

    return put


def sha_of(file: Path) -> str:
    from hashlib import sha256

    return sha256(file.read_bytes()).hexdigest()


@pytest.mark.usefixtures("no_network")
def test_a_base_of_the_hub_is_named_by_commit_and_hash_and_restored_offline(
    hub: Callable[[Path, str], str], tiny_base_of: Bases, tmp_path: Path, cases: list[CaseBags]
) -> None:
    commit = hub(tiny_base_of("llama"), "lab/tiny")
    config = tiny_config(Path("lab/tiny"))
    captioner = _moved(SlideCaptioner.create(config))
    captioner.save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    assert settings["language_model"] == "lab/tiny"
    assert settings["language_model_revision"] == commit
    assert settings["language_model_sha256"] == find_language_model(str(tiny_base_of("llama"))).sha256()
    again = SlideCaptioner.from_pretrained(tmp_path / "model")
    assert [a.token_ids for a in again.generate(cases)] == [b.token_ids for b in captioner.generate(cases)]
    hub(tmp_path / "model", "lab/reports")
    published = SlideCaptioner.from_pretrained("lab/reports")
    assert torch.equal(published.language_projection.weight, captioner.language_projection.weight)


@pytest.mark.usefixtures("hub", "no_network")
def test_what_the_hub_does_not_give_is_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load the language model 'lab/absent'.*hf download lab/absent"):
        find_language_model("lab/absent")
    with pytest.raises(ModelError, match="cannot read the report model 'lab/absent'"):
        SlideCaptioner.from_pretrained("lab/absent")


def test_missing_and_unexpected_tensors_are_named(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    SlideCaptioner.create(tiny_config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["stranger"] = tensors.pop("language_projection.bias")
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(ModelError, match=r"missing \['language_projection.bias'\].*unexpected \['stranger'\]"):
        SlideCaptioner.from_pretrained(tmp_path)


def test_damaged_and_foreign_folders_are_refused(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        SlideCaptioner.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="not the configuration of a report model"):
        SlideCaptioner.from_pretrained(tmp_path)
    SlideCaptioner.create(tiny_config).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot read"):
        SlideCaptioner.from_pretrained(tmp_path)


def test_a_folder_that_cannot_be_written_is_named_and_an_earlier_model_stays(
    tiny_config: CaptionerConfig, tmp_path: Path
) -> None:
    captioner = SlideCaptioner.create(tiny_config)
    captioner.save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        captioner.save_pretrained(tmp_path / "file" / "model")
    (tmp_path / "file").unlink()
    _moved(captioner)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a disk that is full after 20 kB
    try:
        with pytest.raises(OutputError, match="before is intact"):
            captioner.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
