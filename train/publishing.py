"""Publishing a model on the Hub: everything that it takes to use, judge and repeat it, in one commit."""

import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers.pipelines import PIPELINE_REGISTRY

from hcmi.processing import HCMIProcessor

from .model_card import evaluation_files, model_card
from .results import load_result
from .saved_models import load_whole_model

TASK = "text-video-retrieval"
RETRY_AFTER = (2.0, 8.0, 30.0)
"""Seconds before each further attempt. Single requests of an upload are repeated by the client as well."""

_OWN_FILES = ("*.safetensors", "*.safetensors.index.json", "*.py", ".eval_results/*.yaml")
_T = TypeVar("_T")


class PublishingError(OSError):
    """The Hub did not take the model; the message says why, and with which command to try again."""


def publish(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    max_shard_size: str | int = "5GB",
) -> str:
    """
    Publishes a saved model.

    One commit holds weights, configuration, processor and tokenizer, the code that runs the model and its pipeline
    where this package is not installed, and the card; of a training run also its result and arguments, without the
    paths of this machine. What this function put into the repository before and does not any more is deleted by the
    same commit. Nothing in `folder` is changed.

    Args:
        folder: of a training run, or of a model (whose run, if any, is the folder around it).
        repo_id: "owner/name"; made where it does not exist.
        private: refuse to show it to others.
        token: of the Hub; default: the one that the client knows (`HF_TOKEN`, `hf auth login`).
        max_shard_size: larger weights go into several files, as for `save_pretrained`.

    Returns:
        The address of the commit.

    Raises:
        ValueError: no whole HCMI model, an impossible name or token, or `private` and the repository is public.
        PublishingError: the Hub refused, or could not be reached after all attempts. The same call goes on from there:
            weights that have arrived are not sent again.
    """
    api = HfApi(token=_checked_token(token))
    model_folder, run_folder = _places(Path(folder))
    with tempfile.TemporaryDirectory(prefix="hcmi-publish-") as assembled:
        assemble(model_folder, run_folder, repo_id, Path(assembled), max_shard_size)
        command = shlex.join(["hcmi", "publish", str(folder), repo_id, *(["--private"] if private else [])])
        with_advice = f"The files in {folder} are as they were. To try again: {command}"
        _persistently(lambda: _create(api, repo_id, private), repo_id, with_advice)
        return _persistently(lambda: _commit(api, repo_id, Path(assembled)), repo_id, with_advice)


def create_repository(repo_id: str, *, private: bool = False, token: str | None = None) -> None:
    """
    Makes the repository where it does not exist: to learn before a long training whether publishing can succeed.

    Raises:
        ValueError: an impossible name or token, or `private` and the repository is public.
        PublishingError: the Hub refused, or could not be reached after all attempts.
    """
    api = HfApi(token=_checked_token(token))
    _persistently(lambda: _create(api, repo_id, private), repo_id, "Nothing was begun.")


def assemble(
    model_folder: Path, run_folder: Path | None, repo_id: str, target: Path, max_shard_size: str | int = "5GB"
) -> None:
    """
    Writes all files of the repository into an empty folder.

    Raises:
        ValueError: an impossible name, no whole HCMI model, or a result or arguments that cannot be read.
        OSError: a file cannot be read or written.
    """
    _check_name(repo_id)
    try:
        model = load_whole_model(str(model_folder), torch.device("cpu"))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{model_folder}: the weights cannot be read: {error}") from error
    processor = HCMIProcessor.from_pretrained(model_folder)
    pipeline = PIPELINE_REGISTRY.supported_tasks[TASK]["impl"]
    pipeline(model=model, processor=processor, device="cpu").save_pretrained(target, max_shard_size=max_shard_size)

    result, arguments = _records(run_folder, repo_id)
    if result is not None:
        (target / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if arguments is not None:
        (target / "arguments.yaml").write_text(yaml.safe_dump(arguments, sort_keys=False), encoding="utf-8")
    for path, content in evaluation_files(result, arguments).items():
        (target / path).parent.mkdir(exist_ok=True)
        (target / path).write_text(content, encoding="utf-8")
    card = model_card(repo_id, model.config, model.num_parameters(), result, arguments)
    (target / "README.md").write_text(str(card), encoding="utf-8")


def _places(folder: Path) -> tuple[Path, Path | None]:
    """The folders of the model and of its run."""
    if (folder / "config.json").is_file():
        run = folder.absolute().parent
        return folder, run if (run / "arguments.yaml").is_file() else None
    if (folder / "model" / "config.json").is_file():
        return folder / "model", folder
    raise ValueError(f"{folder} is neither a model's folder nor a training run's: it has no config.json")


def _records(run_folder: Path | None, repo_id: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Result and arguments of the run, without paths of this machine."""
    result = arguments = None
    if run_folder is not None and (run_folder / "result.json").is_file():
        result = _without_places(load_result(run_folder / "result.json")) | {"model": repo_id}
    if run_folder is not None and (run_folder / "arguments.yaml").is_file():
        try:
            noted = yaml.safe_load((run_folder / "arguments.yaml").read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{run_folder / 'arguments.yaml'}: not a YAML file: {error}") from error
        arguments = _without_places(noted)
    return result, arguments


def _without_places(value: Any) -> Any:
    """Absolute paths end in their last part: they mean nothing elsewhere and may name people."""
    if isinstance(value, Mapping):
        return {key: _without_places(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_without_places(own) for own in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(os.path.expanduser(value)) else value


def _create(api: HfApi, repo_id: str, private: bool) -> None:
    _check_name(repo_id)
    # None, not False: an organisation's own default may be private.
    api.create_repo(repo_id, private=private or None, exist_ok=True)
    if private and not api.model_info(repo_id).private:
        raise ValueError(f"{repo_id} exists and is public: make it private first, or take another name")


def _commit(api: HfApi, repo_id: str, folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    paths = {file.relative_to(folder).as_posix(): file for file in files}
    # Weights of an earlier form would be loaded instead of these.
    stale = [path for path in api.list_repo_files(repo_id) if path not in paths and _is_own(path)]
    operations: list[Any] = [CommitOperationAdd(path, str(file)) for path, file in paths.items()]
    operations += [CommitOperationDelete(path) for path in stale]
    return api.create_commit(repo_id, operations, commit_message="Publish the model").commit_url


def _is_own(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in _OWN_FILES)


def _persistently(attempt: Callable[[], _T], repo_id: str, advice: str) -> _T:
    """Repeats what fails for reasons that pass; anything else that the Hub or the network says is told at once."""
    for wait in (*RETRY_AFTER, None):
        try:
            return attempt()
        except Exception as error:
            if wait is None or not _passes(error):
                if isinstance(error, ValueError) and not _is_cut_off(error):
                    raise
                raise PublishingError(f"{repo_id} was not published: {_reason(error)}. {advice}") from error
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _passes(error: BaseException) -> bool:
    statuses = [
        e.response.status_code for e in _chain(error) if isinstance(e, HfHubHTTPError) and e.response is not None
    ]
    return statuses[0] == 429 or statuses[0] >= 500 if statuses else _is_cut_off(error)


def _is_cut_off(error: BaseException) -> bool:
    """Whether the network failed, or an answer was no answer of the Hub (a proxy's error page is no JSON)."""
    # By name, because versions of the client stand on different packages.
    kinds = {kind.__name__ for e in _chain(error) for kind in type(e).__mro__}
    return bool(kinds & {"TransportError", "JSONDecodeError"})


def _reason(error: BaseException) -> str:
    if (status := next((_status(e) for e in _chain(error) if _status(e)), None)) == 401:
        return "the Hub does not accept the token, or there is none: log in with `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return "the token may not write there"
    return " ".join(": ".join(dict.fromkeys(str(e) or type(e).__name__ for e in _chain(error))).split()).rstrip(".")


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name on the Hub: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is no name on the Hub: it has to be owner/name")


def _checked_token(token: str | None) -> str | None:
    """Refuses what cannot be a token here: what sends it would print it in its error."""
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", token):
        raise ValueError("the token has characters that no token of the Hub has")
    return token
