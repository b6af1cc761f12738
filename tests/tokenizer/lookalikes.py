"""What may lie under the name of a sentencepiece vocabulary."""

from vocabularies import message


def piece(text: bytes, kind: int = 1, score: float = 0.0) -> bytes:
    return message((1, text), (2, score), (3, kind))


LOOKALIKES = {
    "empty": b"",
    "zeros": bytes(1000),
    "garbage": bytes(range(256)) * 8,
    "text": b"once upon a time there was a file\n" * 50,
    "Git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n",
    "web page": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
    "JSON": b'{"version": "1.0", "model": {"type": "BPE"}}',
    "tiktoken": b"IQ== 0\nIg== 1\nIw== 2\n",
    "no pieces": message((2, message((4, 100))), (3, message((1, b"identity")))),
    "no settings": message((1, piece(b"<unk>", 2)), (1, piece(b"a"))),
    "no unknown piece": message((1, piece(b"a")), (2, message((3, 2))), (3, message((1, b"identity")))),
    "a piece twice": message(
        (1, piece(b"<unk>", 2)),
        (1, piece(b"a")),
        (1, piece(b"a")),
        (2, message((3, 2))),
        (3, message((1, b"identity"))),
    ),
    "a kind that does not exist": message((1, piece(b"a", 9)), (2, b""), (3, b"")),
    "a score of NaN": message((1, piece(b"a", 1, float("nan"))), (2, b""), (3, b"")),
    "a byte that is none": message((1, piece(b"<0xZZ>", 6)), (2, b""), (3, b"")),
    "a piece that is no UTF-8": message((1, piece(b"\xff\xfe")), (2, b""), (3, b"")),
    "a piece that is a number": message((1, 5), (2, b""), (3, b"")),
}
