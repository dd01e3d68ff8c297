"""Places in a decoder as sites of attribution: ``method="layer"`` and all others that take one."""

from __future__ import annotations

from torch import nn

from ..model.network import Site
from ..text.models import ModelLike, language_model
from .architectures import Architecture, decoder_of


def sites(model: ModelLike, architecture: Architecture | None = None) -> dict[str, Site]:
    """The residual stream, the heads and the MLPs of a decoder, as sites to explain.

    "stream0" is the stream before layer 0, and so on up to the finished one; "a0" the heads of
    layer 0, one after the other, before the output projection; "m0" what its MLP adds. They go
    wherever a layer does: ``ig.explain(model, ids, method="layer", site=sites["a0"],
    baseline=corrupt_ids)``, and several in a list.

    Args:
        model: as in ``ig.circuits.edges``.
        architecture: see there.

    Returns:
        Sites by name: values of "a3" are (B, T, H·d), of all others (B, T, D).

    Raises:
        ModelError: for a model of which there is no description.

    Example:
        >>> import transformers, integrand as ig
        >>> config = transformers.GPT2Config(
        ...     vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        ... )
        >>> ig.circuits.sites(transformers.GPT2LMHeadModel(config))["a0"]
        Site('transformer.h.0.attn.c_proj', 'input', tensor=0)
    """
    language = language_model(model, None if architecture is None else architecture.embeddings)
    decoder = decoder_of(language, architecture)
    names: dict[nn.Module, str] = {module: name for name, module in language.module.named_modules()}
    by_name: dict[str, Site] = {}
    for layer, block in enumerate(decoder.blocks):
        by_name[f"stream{layer}"] = Site(names[block.module], "input", tensor=0)
        by_name[f"a{layer}"] = Site(names[block.attention_output], "input", tensor=0)
        by_name[f"m{layer}"] = Site(names[block.mlp_added], tensor=0)
    last = Site(names[decoder.final_norm], "input", tensor=0)
    return {**by_name, f"stream{len(decoder.blocks)}": last}
