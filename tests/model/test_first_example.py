"""The first lines that anybody writes with this package, on the embedded model."""

from llama_core import KVCache, Llama, Tokenizer, capture, generate


def test_tokens_by_generate_are_the_greedy_ones_and_cache_and_capture_see_the_same_model():
    model = Llama.from_pretrained("stories", dtype="float32")
    tokenizer = Tokenizer.from_pretrained("stories")
    ids = tokenizer.encode("One day", bos=True)
    told = list(generate(model, ids, max_new_tokens=8, temperature=0))

    input_ids = model.embed_tokens.weight.new_tensor([ids + told]).long()
    cache = KVCache(model.config, batch_size=1, max_length=256)
    logits = model(input_ids, cache=cache)  # [B, S, V]
    assert logits[0, len(ids) - 1 : -1].argmax(-1).tolist() == told and cache.length == len(ids) + 8
    assert tokenizer.decode(ids + told).startswith("One day")

    with capture(model, "layers.*.attention_weights") as seen:
        model(input_ids)
    assert list(seen) == [f"layers.{n}.attention_weights" for n in range(model.config.num_hidden_layers)]
    assert all(abs(weights.sum(-1) - 1).max() < 1e-5 for weights in seen.values())
