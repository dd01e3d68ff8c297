"""What a model of texts says of itself: its kind, its embedding layer, how much it reads.

This is the only file that knows Hugging Face's names: the signature of ``forward`` is what that
library itself goes by, and class names are looked up in its own lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..core.optional import optional
from ..core.shapes import describe
from ..errors import InputError, ModelError, UnknownName
from ..model.autograd import gradients
from ..model.checkpointing import recomputed, repeated_blocks
from ..model.discovery import uncompiled
from ..model.turns import turn, undone

_NEEDS = "Explaining texts"
_CHUNK = 4096  # rows of an embedding table that are looked up at a time

CLASSIFIER = "sequence classifier"
TAGGER = "token classifier"
MASKED = "masked language model"
CAUSAL = "causal language model"
SEQ2SEQ = "encoder-decoder"
OTHER = "model"

_LISTS = {
    CLASSIFIER: "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    TAGGER: "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    MASKED: "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    CAUSAL: "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    SEQ2SEQ: "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}

_FOLDER = "hf:"
_POOLER = "pooler."


def named_folder(spec: str) -> str | None:
    """The folder that "hf:FOLDER" names, on command lines and in recipes; None for other names."""
    return spec.removeprefix(_FOLDER) if spec.startswith(_FOLDER) else None


ModelLike = nn.Module | str | Path
"""A model of Hugging Face, by object or by the folder it was saved to."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer; the fast ones of transformers have it."""

    all_special_ids: list[int]
    mask_token_id: Any
    unk_token_id: Any

    def __call__(self, *texts: Any, **options: Any) -> Any: ...

    def apply_chat_template(self, *messages: Any, **options: Any) -> Any: ...

    def convert_ids_to_tokens(self, *ids: Any, **options: Any) -> Any: ...

    def decode(self, *ids: Any, **options: Any) -> Any: ...

    def __len__(self) -> int: ...

    def get_vocab(self) -> dict[str, int]: ...


TokenizerLike = Tokenizer | str | Path
"""A tokenizer, by object or by the folder it was saved to."""


@dataclass(eq=False)
class LanguageModel:
    """A model that reads token ids, and what is known of it.

    Args:
        module: the user's model.
        embeddings: its embedding layer, by name or as the module, where the model does not say.
        checkpoint: whether its repeated blocks are run again on the way back, so that a call keeps
            the activations of one of them at a time.
    """

    module: nn.Module
    embeddings: str | nn.Module | None = None
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise InputError(
                f"The model is a {type(self.module).__name__}: give a model of Hugging Face, an nn.Module that reads token ids, or the folder "
                "of one."
            )

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return type(self.module).__name__

    @property
    def module_config(self) -> Any:
        """The configuration that the model carries; None for modules without one."""
        return getattr(self.module, "config", None)

    @cached_property
    def config(self) -> Any:
        """Its configuration, that of the part which reads text; None for modules without one."""
        config = self.module_config
        text_part = getattr(config, "get_text_config", None)
        if text_part is None or self.setting("is_encoder_decoder", of=config):
            return config
        return text_part()

    def setting(self, name: str, default: Any = None, of: Any = None) -> Any:
        """An entry of its configuration, which not every kind has."""
        config = self.config if of is None else of
        return getattr(config, name, default)

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The arguments that its ``forward`` names."""
        return frozenset(inspect.signature(self.module.forward).parameters)

    @cached_property
    def kind(self) -> str:
        """What it does, by the lists that the library keeps of its own classes; of a class that is
        in none, by what its configuration says."""
        if self.setting("is_encoder_decoder", False) and "decoder_input_ids" in self.parameters:
            return SEQ2SEQ
        classes = [cls.__name__ for cls in type(self.module).__mro__]
        for kind, known in _known_classes().items():
            if any(name in known for name in classes):
                return kind
        for kind, ending in (
            (CLASSIFIER, "ForSequenceClassification"),
            (TAGGER, "ForTokenClassification"),
            (MASKED, "ForMaskedLM"),
            (CAUSAL, "ForCausalLM"),
        ):
            if any(name.endswith(ending) for name in classes):
                return kind
        return OTHER

    @property
    def generates(self) -> bool:
        """Whether it writes texts."""
        return self.kind in (CAUSAL, SEQ2SEQ)

    @cached_property
    def embedding(self) -> nn.Module:
        """The layer that makes vectors of the ids that are explained.

        Raises:
            UnknownName: for a layer that there is not.
            ModelError: for models that do not say which it is.
        """
        if isinstance(self.embeddings, nn.Module):
            return self.embeddings
        if isinstance(self.embeddings, str):
            layers: dict[str, nn.Module] = dict(self.module.named_modules())
            if self.embeddings not in layers:
                raise UnknownName("layer", self.embeddings, layers)
            return layers[self.embeddings]
        module: Any = self.module
        reader = module.get_encoder() if self.kind == SEQ2SEQ else module
        ask = getattr(reader, "get_input_embeddings", None)
        layer = ask() if callable(ask) else None
        if not isinstance(layer, nn.Module):
            raise ModelError(
                f"{self.name} does not say which layer makes vectors of its token ids: name it, as in embeddings='encoder.embedding'."
            )
        return layer

    @cached_property
    def device(self) -> torch.device:
        """Where its embedding layer is, and ids have to be. Weights that are elsewhere until they
        are needed (``meta``) are fetched by whoever put them there, for ids on the CPU."""
        device = next((weight.device for weight in self.embedding.parameters()), None)
        return torch.device("cpu") if device is None or device.type == "meta" else device

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """The blocks that it says it repeats; those around its embedding layer are none."""
        return repeated_blocks(self.module, self.embedding)

    @cached_property
    def rows(self) -> int | None:
        """How many tokens its embedding table has; None where that is not known."""
        weight = getattr(self.embedding, "weight", None)
        return len(weight) if isinstance(weight, Tensor) and weight.ndim == 2 else None

    @cached_property
    def longest(self) -> int | None:
        """How many tokens it reads at most; None where there is no such limit."""
        limit = self.setting("max_position_embeddings")
        if not isinstance(limit, int) or limit < 1:
            return None
        for name, module in self.module.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                # RoBERTa numbers positions from behind that of padding.
                return limit - (0 if module.padding_idx is None else module.padding_idx + 1)
        return limit

    @property
    def classes(self) -> int:
        """How many classes its configuration names, two of one name counted as two; 0 where it
        names none."""
        return len(self.setting("id2label") or {})

    @property
    def labels(self) -> dict[str, int]:
        """Its classes by name; empty where they have none."""
        named = self.setting("id2label") or {}
        return {str(label): int(number) for number, label in named.items()}

    # --- vectors --------------------------------------------------------------------------------------------------

    def vectors(self, ids: Tensor) -> Tensor:
        """The vectors (…, D) of token ids, as its embedding layer makes them: scaled where it
        scales."""
        # While another thread explains this model, its embedding layer gives that one's vectors.
        with turn(), gradients(False):
            try:
                vectors = self.embedding(ids.to(self.device))
            except (TypeError, ValueError) as error:
                raise self._no_vectors() from error
        if not isinstance(vectors, Tensor) or vectors.shape[:-1] != ids.shape:
            raise self._no_vectors()
        return vectors.detach()

    def _no_vectors(self) -> ModelError:
        return ModelError(
            f"The layer of {self.name} that was taken for its embedding, a {type(self.embedding).__name__}, does not make a vector of each "
            "token id: name the one that does, as in embeddings='encoder.embedding'."
        )

    @cached_property
    def table(self) -> Tensor:
        """The vectors of all tokens (V, D)."""
        return torch.cat(list(self._chunks()))

    @cached_property
    def mean(self) -> Tensor:
        """The mean (D,) of the vectors of all tokens, summed in float64."""
        return _mean_of(self._chunks())

    def _chunks(self) -> Iterator[Tensor]:
        if self.rows is None:
            raise ModelError(
                f"The embedding layer of {self.name}, a {type(self.embedding).__name__}, has no table of vectors: give baseline= vectors."
            )
        for first in range(0, self.rows, _CHUNK):
            yield self.vectors(torch.arange(first, min(first + _CHUNK, self.rows)))

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, vectors: Tensor, ids: Tensor, arguments: Mapping[str, Any]) -> Any:
        """Its outputs for token ids (N, T) whose vectors are ``vectors`` (N, T, D).

        The model runs as it does for the ids, so that positions, masks and whatever else it makes
        of these are its own; only what comes out of its embedding layer is replaced.
        """
        named = {
            name: value
            for name, value in arguments.items()
            if name in self.parameters and value is not None
        }
        if "inputs_embeds" in self.parameters and "input_ids" not in self.parameters:
            raise ModelError(
                f"{self.name} takes vectors (inputs_embeds) and no token ids, so that it is no model of texts by itself: explain the vectors, "
                "ig.explain(model, {'inputs_embeds': vectors}, target=…), or give the model around it that looks them up."
            )
        blocks = self.blocks if self.checkpoint else ()
        with self._embedded(vectors, ids) as used, recomputed(blocks):
            if "input_ids" in self.parameters:
                outputs = self.module(input_ids=ids, **named)
            else:
                outputs = self.module(ids, **named)
        if not used.replaced and used.otherwise:
            raise ModelError(
                f"{self.name} rearranges token ids before it looks up their vectors ({describe(used.otherwise[0])} where {describe(ids.shape)} was given), "
                "so that vectors of tokens cannot take their place in it: models that do so are not supported."
            )
        if not used.replaced:
            raise ModelError(
                f"{self.name} does not run the layer that it says makes its vectors ({type(self.embedding).__name__}): name the one that does, "
                "as in embeddings='encoder.embedding'."
            )
        return outputs

    @contextmanager
    def padding(self, pad: int) -> Iterator[None]:
        """While this lasts its configuration knows the id of padding: classifiers that read on from
        the last token look for it there, and refuse several rows without one."""
        with turn():
            config = self.module_config
            if config is None or self.setting("pad_token_id", of=config) is not None:
                yield
                return
            with undone(lambda: setattr(config, "pad_token_id", None)):
                config.pad_token_id = pad
                yield

    @contextmanager
    def _embedded(self, vectors: Tensor, ids: Tensor) -> Iterator[_Used]:
        """While this lasts the embedding layer gives ``vectors`` when it runs first: a decoder that
        shares it, and token types that use it, have their own."""
        used = _Used()

        def replaced(module: nn.Module, passed: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if used.replaced or not isinstance(output, Tensor):
                return None
            # As many texts as tokens: only the ids themselves tell rows from columns.
            square = len(ids) == ids.shape[1] and passed and isinstance(passed[0], Tensor)
            if output.shape != vectors.shape or (square and _is_transposed(passed[0], ids)):
                used.otherwise.append(output.shape[:-1])
                return None
            used.replaced = True
            return vectors.to(output)

        handle = self.embedding.register_forward_hook(replaced)
        try:
            yield used
        finally:
            handle.remove()


@dataclass
class _Used:
    """Whether the output of an embedding layer was replaced, and shapes of ids for which it ran before that."""

    replaced: bool = False
    otherwise: list[torch.Size] = field(default_factory=list)


def _is_transposed(given: Tensor, ids: Tensor) -> bool:
    return (
        given.shape == ids.shape
        and not torch.equal(given.to(ids), ids)
        and torch.equal(given.to(ids), ids.T)
    )


def _mean_of(chunks: Iterator[Tensor]) -> Tensor:
    total, count, like = torch.zeros((), dtype=torch.float64), 0, torch.empty(0)
    for like in chunks:
        total = total.to(like.device) + like.double().sum(0)
        count += len(like)
    return (total / count).to(like.dtype)


_classes: dict[str, frozenset[str]] = {}


def _known_classes() -> dict[str, frozenset[str]]:
    """Names of the library's classes by what they do."""
    if not _classes:
        auto = optional("transformers.models.auto.modeling_auto", extra="text", needs=_NEEDS)
        for kind, attribute in _LISTS.items():
            names: set[str] = set()
            for entry in getattr(auto, attribute).values():
                names.update([entry] if isinstance(entry, str) else entry)
            _classes[kind] = frozenset(names)
        # What a model is called for its task says more than that it can also write.
        _classes[CAUSAL] -= frozenset().union(*(v for k, v in _classes.items() if k != CAUSAL))
    return _classes


def language_model(model: ModelLike, embeddings: str | nn.Module | None = None) -> LanguageModel:
    """A model of texts, by object or as the local folder that ``save_pretrained`` wrote.

    Raises:
        InputError: for what is neither, and for folders without a model.
        MissingExtra: without transformers, for folders.
    """
    if isinstance(model, str | Path):
        model = _loaded(_folder(model))
    # A compiled model hides its class and the names of its modules: the same one runs as it was.
    return LanguageModel(uncompiled(model), embeddings)


def tokenizer_of(tokenizer: TokenizerLike | None, model: ModelLike) -> Tokenizer:
    """A tokenizer, by object or local folder; that of the model's folder where none is given.

    Raises:
        InputError: where there is none.
    """
    where = model if tokenizer is None else tokenizer
    if isinstance(where, str | Path):
        auto = optional("transformers", extra="text", needs=_NEEDS).AutoTokenizer
        loaded: Tokenizer = _from(auto.from_pretrained, _folder(where), "tokenizer")
        return loaded
    if tokenizer is None or isinstance(tokenizer, str | Path):
        raise InputError(
            "There is no tokenizer: give the one of the model, or explain ids with ig.text.explain_ids."
        )
    if not callable(tokenizer):
        raise InputError(
            f"The tokenizer is a {type(tokenizer).__name__}: give the one of the model, as an object or as its local folder."
        )
    return tokenizer


def _folder(where: str | Path) -> Path:
    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {str(where)!r}: models and tokenizers are given as objects, or as a local folder that save_pretrained wrote. "
            "Nothing is downloaded."
        )
    return folder


def _loaded(folder: Path) -> nn.Module:
    transformers = optional("transformers", extra="text", needs=_NEEDS)
    config = _from(transformers.AutoConfig.from_pretrained, folder, "configuration of a model")
    name = next(iter(config.architectures or ()), "AutoModel")
    architecture = getattr(transformers, name, None)
    if architecture is None:
        raise InputError(
            f"{str(folder)!r} holds a {name}, which this version of transformers does not have: load it yourself and give the object."
        )
    load = partial(architecture.from_pretrained, output_loading_info=True)
    module, report = _from(load, folder, "model")
    absent = sorted(report["missing_keys"])
    if absent and all(key.startswith(_POOLER) for key in absent):
        # Models with another head are saved without the pooler, which theirs does not ask.
        with suppress(InputError):  # of a class that has it always
            module, report = _from(partial(load, add_pooling_layer=False), folder, "model")
            absent = sorted(report["missing_keys"])
    if absent:  # they would be drawn by chance, and explained as if they had been learned
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise InputError(
            f"{str(folder)!r} lacks weights of its {type(module).__name__}: {', '.join(absent[:3])}{more}. Name the class that was saved under "
            "'architectures' of its config.json, or load the model yourself and give the object."
        )
    return cast("nn.Module", module).eval()


def _from(load: Callable[..., Any], folder: Path, what: str) -> Any:
    try:
        return load(str(folder), local_files_only=True)
    except Exception as error:  # transformers and safetensors raise what they like of damaged files
        reason = " ".join(str(error).split())
        raise InputError(f"{str(folder)!r} holds no {what} that can be read: {reason}") from error
