"""Where a checkpoint lies: a path on this machine, or a hub id, with a revision if wished, in the hub's cache."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from lpi_jax.errors import UserError
from lpi_jax.models.tensor_files import brief, listed

USUAL = ("*.json", "*.safetensors", "*.txt")
FLAX = "flax_model.msgpack"
WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".safetensors", ".npz", ".onnx", ".gguf")


def transformers() -> ModuleType:
    """The library, imported when it is asked for, since it takes a second; silent about the PyTorch it misses."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return transformers


def local_path(path_or_hub_id: str | Path, patterns: Iterable[str] = USUAL, fetch: bool = True) -> Path:
    """A local file or directory as it is; the files of a hub id from the hub's cache.

    Args:
      path_or_hub_id: a path, or ID or ID@REVISION (a branch, a tag, a commit, refs/pr/N).
      patterns: which files of a hub id are wanted. fetch: whether those that are not here yet are downloaded.

    Raises: UserError for what is not here and cannot be fetched, or is no possible path.
    """
    name, expected = str(path_or_hub_id), "expected a checkpoint directory, a checkpoint file or a hub id"
    try:
        path = Path(name).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, not allowed, the home of nobody
        raise UserError(f"{brief(name)} cannot be looked up ({brief(error)}); {expected}") from error
    if isinstance(path_or_hub_id, Path) or not (parts := _hub_id(name)):
        raise UserError(f"{name} does not exist; {expected}")
    from huggingface_hub import snapshot_download

    hub_id, revision = parts
    options = {**({"revision": revision} if revision else {}), **({} if fetch else {"local_files_only": True})}
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), **options))
    except Exception as error:  # many kinds: offline, unknown name, forbidden, disk full
        raise UserError(f"{name} is neither a local path nor a hub id that can be fetched ({brief(error)})") from error


def at_hand(path_or_hub_id: str | Path) -> Path | None:
    """Where a checkpoint lies on this machine; None if it would have to be downloaded, or is nowhere."""
    try:
        return local_path(path_or_hub_id, fetch=False)
    except UserError:
        return None


def with_weights(path_or_hub_id: str | Path) -> Path:
    """As `local_path`, for what is to hold weights: a hub id without safetensors is looked through for Flax's.

    Raises: UserError as `local_path`; where a hub id has no weights that can be read, with the names of those it has.
    """
    path = local_path(path_or_hub_id)
    if not path.is_dir() or Path(str(path_or_hub_id)).expanduser().exists() or any(path.glob("*.safetensors")):
        return path
    path = local_path(path_or_hub_id, (*USUAL, FLAX))
    if not (path / FLAX).is_file():
        raise UserError(f"{path_or_hub_id} {unreadable(_remote_files(str(path_or_hub_id)))}")
    return path


def unreadable(files: Iterable[str]) -> str:
    """The end of a sentence about a checkpoint whose `files` hold no weights that can be read: what next."""
    there = [name for name in files if name.endswith(WEIGHTS)]
    holds = f"holds {listed(there)} but no" if there else "holds no"
    return (
        f"{holds} model.safetensors, open_clip_model.safetensors or {FLAX}; pickles are never read: name a revision"
        " with safetensors as ID@REVISION (on the hub often refs/pr/N), or convert once where PyTorch is installed,"
        " with transformers' CLIPModel.from_pretrained(ID).save_pretrained(FOLDER)"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name that is no local path could be one on the hub."""
    return _hub_id(name) is not None


def _hub_id(name: str) -> tuple[str, str] | None:
    """Hub id and revision ("": the usual one); None where `name` can be none."""
    match = re.fullmatch(r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(\w[\w./-]*))?", name)
    return None if not match or name.endswith((".safetensors", ".npz")) else (match[1], match[2] or "")


def _remote_files(name: str) -> list[str]:
    from huggingface_hub import list_repo_files

    hub_id, revision = _hub_id(name) or (name, "")
    try:
        return list_repo_files(hub_id, revision=revision or None)
    except Exception:  # whatever it is, the sentence that asks can do without
        return []


def names_in(directory: Path) -> list[str]:
    """The names in a directory; none where it cannot be read."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
