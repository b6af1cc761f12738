"""Hugging Face folders with something wrong in config.json or generation_config.json."""

from __future__ import annotations

import json
from collections.abc import Iterator

from case import Case
from folders import CONFIG_FILE, GENERATION_FILE, bad, no_regular_file
from model_folders import edit_config

LARGER = {"num_hidden_layers": 10**6, "hidden_size": 2**20, "vocab_size": 2**31 - 1, "intermediate_size": 2**31 - 1}
#: text of config.json that is wrong in one key -> the key
KEYED_DOCUMENTS = {
    "duplicate key": "vocab_size",
    "duplicate inner key": "a",
    "float overflow": "rope_theta",
    "NaN": "rms_norm_eps",
    "Infinity": "rope_theta",
    "minus infinity": "rope_theta",
}
ENDLESS = {  # numbers that float32 cannot hold, or whose tables it cannot
    "rms_norm_eps": [1e300, 1e-60],
    "rope_theta": [1e-300, 1e308],
}
GENERATION = {
    "an id beyond the vocabulary": ('{"eos_token_id": 99}', "eos_token_id"),
    "an id that is text": ('{"eos_token_id": "2"}', "eos_token_id"),
    "an id that is true": ('{"bos_token_id": true}', "bos_token_id"),
    "an id that is a fraction": ('{"pad_token_id": 1.5}', "pad_token_id"),
    "a list of lists": ('{"eos_token_id": [[2]]}', "eos_token_id"),
    "a key twice": ('{"eos_token_id": 2, "eos_token_id": 3}', "eos_token_id"),
    "NaN": ('{"temperature": NaN}', "temperature"),
    "a list": ("[]", None),
    "empty": ("", None),
    "a page": ("<html></html>", None),
    "nested deep": ("[" * 200_000, None),
}


def config_cases() -> Iterator[Case]:
    from config_variants import BAD_DOCUMENTS, BAD_VALUES, GOOD_TEXT, LLAMA3, YARN

    concern = "configuration"
    for changes, key, words in BAD_VALUES:
        key = key or "rope_scaling.original_max_position_embeddings"
        name = json.dumps({k: "(absent)" if v is ... else v for k, v in changes.items()})[:240]
        yield bad(concern, name, lambda f, c=changes: edit_config(f, **c), "ConfigError", CONFIG_FILE, key, words)
    for name, (text, words) in BAD_DOCUMENTS.items():
        make = lambda f, t=text: (f / "config.json").write_text(t, encoding="utf-8")  # noqa: E731
        key = KEYED_DOCUMENTS.get(name)
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE, key, words)
    bytes_of = {
        "UTF-16": GOOD_TEXT.encode("utf-16"),
        "a NUL in it": GOOD_TEXT.encode() + b"\0",
        "bytes that are no text": b'{"model_type": "ll\xffama"}',
        "two million brackets": b'{"a": [' + b"[]," * 660_000 + b"[]]}",
        "120,000 keys": b"{" + b",".join(b'"k%d":{}' % n for n in range(120_000)) + b"}",
    }
    for name, content in bytes_of.items():
        make = lambda f, c=content: (f / "config.json").write_bytes(c)  # noqa: E731
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE, None)
    for name, make in no_regular_file("config.json").items():
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE)
    yield bad(concern, "missing", lambda f: (f / "config.json").unlink(), "ConfigError", CONFIG_FILE)
    for key, value in LARGER.items():
        named = key if key == "num_hidden_layers" else "hidden_size"
        make = lambda f, k=key, v=value: edit_config(f, **{k: v, "head_dim": 4})  # noqa: E731
        yield bad(concern, f"{key} {value}", make, "WeightsError", CONFIG_FILE, named, "much larger model")
    for key, values in ENDLESS.items():
        for value in values:
            make = lambda f, k=key, v=value: edit_config(f, **{k: v})  # noqa: E731
            yield bad(concern, f"{key} {value}", make, "ConfigError", CONFIG_FILE, key)
    stretched = {
        "an attention factor of 1e300": (YARN | {"attention_factor": 1e300}, "attention_factor"),
        "a factor of 1e308": (LLAMA3 | {"factor": 1e308}, "factor"),
        "two attention factors of 1e-300": (YARN | {"mscale": 1e300, "mscale_all_dim": 1e-300}, "mscale"),
    }
    for name, (scaling, key) in stretched.items():
        make = lambda f, s=scaling: edit_config(f, rope_scaling=s)  # noqa: E731
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE, f"rope_scaling.{key}")
    for name, (text, key) in GENERATION.items():
        make = lambda f, t=text: (f / "generation_config.json").write_text(t)  # noqa: E731
        yield bad("generation_config.json", name, make, "ConfigError", GENERATION_FILE, key)
    for name, make in no_regular_file("generation_config.json").items():
        yield bad("generation_config.json", name, make, "ConfigError", GENERATION_FILE)
