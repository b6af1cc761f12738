"""Manifests that are wrong: what is changed in a good one, and words of the error."""


def change(key, value):
    def edit(document):
        target = document
        *path, last = key
        for part in path:
            target = target[part]
        target[last] = value

    return edit


BAD_MANIFESTS = {
    "another version": (("version",), 2, "version"),
    "version true": (("version",), True, "version"),
    "another format": (("format",), "gguf", "format"),
    "path outside the folder": (("tensors", 0, "file"), "../golden/call-0-layer-001.safetensors", "plain name"),
    "absolute path": (("tensors", 0, "file"), "/etc/passwd", "plain name"),
    "file that is not there": (("tensors", 0, "file"), "call-9.safetensors", "missing"),
    "lying shape": (("tensors", 0, "shape"), [1, 7, 31], "disagree"),
    "huge shape": (("tensors", 0, "shape"), [1, 2**40, 2**40], "disagree"),
    "lying dtype": (("tensors", 0, "dtype"), "float16", "disagree"),
    "negative size": (("tensors", 0, "shape"), [1, -7, 32], "whole number"),
    "axes of another tensor": (("tensors", 0, "axes"), "B S F", "axes"),
    "more letters than axes": (("tensors", 0, "axes"), "B S H D", "letters"),
    "wrong hash": (("tensors", 0, "sha256"), "0" * 64, "have changed"),
    "lying statistics": (("tensors", 0, "statistics", "l2"), 3.0, "statistics"),
    "unknown key": (("colour",), "blue", "unknown key"),
    "unknown compute dtype": (("compute_dtype",), "int4", "compute_dtype"),
    "call that is not there": (("tensors", 0, "call"), 7, "whole number"),
    "the same tensor twice": (("tensors", 1, "name"), "layers.1.attention_norm", "once"),
    "ragged ids": (("calls", 0, "input_ids"), [[1], [2, 3]], "one length"),
    "ids that are text": (("calls", 0, "input_ids"), [["1", "2", "3", "4", "5", "6", "7"]], "whole number"),
    "a position twice": (("calls", 0, "positions"), [[0, 0, 1, 2, 3, 4, 5]], "once"),
    "impossible configuration": (("model", "config", "num_attention_heads"), 0, "num_attention_heads"),
    "unknown configuration": (("model", "config", "colour"), 3, "unknown key"),
    "statistics that are text": (("tensors", 0, "statistics", "sum"), "1", "finite number"),
    "a negative length": (("tensors", 0, "statistics", "l2"), -3.0, "statistics"),
    "a negative count": (("tensors", 0, "statistics", "nan"), -1, "statistics"),
    "a minimum above the maximum": (("tensors", 0, "statistics", "min"), 1e9, "statistics"),
    "heads side by side": (("tensors", 1, "shape"), [1, 7, 48], "has 3 sizes"),
    "a position out of all reach": (("calls", 0, "positions", 0, 6), 2**31 - 1, "whole number"),
    "a key out of all reach": (("calls", 0, "key_positions", 0, 6), 2**31 - 1, "whole number"),
    "past in the future": (("calls", 1, "past"), 1, "whole number"),
}
