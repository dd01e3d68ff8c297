import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import integrand as ig

# A small language model, trained on eight sentences.
capitals = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Egypt": "Cairo"}
facts = [f"The capital of {land} is {town} ." for land, town in capitals.items()]
facts += [f"{town} is a town in {land} ." for land, town in capitals.items()]
words = ["<pad>", "<unk>", *dict.fromkeys(" ".join(facts).split())]
table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
table.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=table, pad_token="<pad>", unk_token="<unk>"
)
torch.manual_seed(0)
config = transformers.GPT2Config(
    vocab_size=len(words),
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=16,
    bos_token_id=0,
    eos_token_id=0,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
)
model = transformers.GPT2LMHeadModel(config)
optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
ids = tokenizer(facts, return_tensors="pt", padding=True)["input_ids"]
for _ in range(120):
    loss = model(ids, labels=ids.masked_fill(ids == 0, -100)).loss
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
model.eval()

# Which edges carry the land to the answer?
clean = ["The capital of France is", "The capital of Spain is"]
corrupt = ["The capital of Italy is", "The capital of Egypt is"]
asked = [ig.text.NextToken("Paris", against="Rome"), ig.text.NextToken("Madrid", against="Cairo")]
circuit = ig.circuits.edges(model, clean, corrupt, metric=asked, tokenizer=tokenizer)
print(circuit)  # F of both, the gap of what adds up, the estimated error, what it took
print(circuit.top(3))  # the strongest edges
print(circuit.top_nodes(3))  # and the strongest heads and MLPs

# Is it true?
losses = ig.circuits.activation_patching(
    model, clean, corrupt, circuit.top(3), metric=asked, tokenizer=tokenizer
)
print(losses.mean(1))  # what F really loses without each of them
curve = ig.circuits.faithfulness(model, clean, corrupt, circuit, metric=asked, tokenizer=tokenizer)
print(curve, curve.smallest(0.85))  # how few edges keep 85 % of the change
print(curve.to_pandas())  # beside as many random ones

# Any function of the logits, and token ids, do as well.
paris, rome = tokenizer.convert_tokens_to_ids(["Paris", "Rome"])
pair = [tokenizer(texts[0])["input_ids"] for texts in (clean, corrupt)]
nodes = ig.circuits.nodes(
    model, *pair, metric=lambda logits: logits[:, -1, paris] - logits[:, -1, rome]
)
layers = ig.circuits.edges(
    model, clean, corrupt, metric=asked, tokenizer=tokenizer, method="eap-ig-activations"
)
print(layers.to_pandas("completeness"))  # what each layer's edges add up to, and should
frozen = ig.circuits.nodes(
    model,
    clean,
    corrupt,
    metric=asked,
    tokenizer=tokenizer,
    backward=ig.fields.FrozenNorm(),
)
print(frozen.top_nodes(3))  # with the scales of norms taken as given
page = circuit.to_html(count=20)  # to_html("circuit.html") writes it, too

# Between which layers does the answer appear?
credit = ig.circuits.layer_credit(model, clean, corrupt, metric=asked, tokenizer=tokenizer)
print(credit, credit.appeared())  # the layer from which on half of the change is written
print(credit.to_pandas())  # by layer: its heads, its MLP, and F read off the stream behind it

# Heads as a layer of their own, token by token.
sites = ig.circuits.sites(model)
first, second = (tokenizer(texts, return_tensors="pt")["input_ids"] for texts in (clean, corrupt))
heads = ig.explain(
    model,
    first,
    target=lambda outputs: outputs.logits[:, -1, paris] - outputs.logits[:, -1, rome],
    method="layer",
    site=sites["a0"],
    baseline=second,
)
print(heads.values.unflatten(-1, (4, -1)).sum(-1)[0].T)  # head × token
