"""Are mistakes in whole models located and named? ``cause_sweep.py KIND [ID ...]`` prints a line of JSON each.

``ENGINE-LEVEL`` sweeps the catalogue, planted in one layer of an engine that shows so much; ``replays`` the bugs of
public threads; ``pairs`` two mistakes in two layers; ``outside`` errors of no known kind; ``right`` engines without a
mistake. Run as a process of its own, without the import hook that checks types and makes it several times slower.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "gates")]

PLANTED_KINDS = tuple(
    f"{engine}-{level}" for engine in ("plain", "transformers") for level in ("full", "boundaries", "statistics")
)
KINDS = (*PLANTED_KINDS, "pairs", "replays", "outside", "right")
#: Mistakes that a trace cannot show: what is counted, and what is done with logits and ids.
NOT_IN_TRACES = ("0", "9", "10")
#: In one place of a model these are the same change; the finder may say either.
SAME_HERE = {
    "model-last-layer-skipped": {"layer-skipped"},
    "model-first-layer-skipped": {"layer-skipped"},
    "model-layers-reversed": {"weights-of-layer-2"},
    "model-layers-sorted-as-text": {"weights-of-layer-2"},
    "model-first-layer-repeated": {"weights-of-layer-0"},
}
#: (in layer 1, in layer 2); what goes wrong in an earlier call comes first, so a cache's mistake is the second.
PAIRS = (
    ("attention-no-scale", "ffn-relu"),
    ("norm-eps-1e-3", "rope-pairs-swapped"),
    ("ffn-gate-and-up-swapped", "norm-weight-ignored"),
    ("attention-heads-tiled", "attention-heads-tiled"),
    ("qkv-k-and-v-swapped", "output-heads-by-rank"),
    ("block-parallel-residual", "cache-keys-rotated-again"),
    ("rope-sign-flipped", "attention-mask-never-applied"),
    ("block-second-residual-missing", "qkv-v-from-k"),
)


@cache
def results(kind: str, *ids: str) -> list[dict]:
    """What a sweep finds; run once per test session."""
    return list(running(kind, *ids))


def running(kind: str, *ids: str) -> Iterator[dict]:
    """What a sweep finds, as it finds it."""
    command = [sys.executable, str(Path(__file__)), kind, *ids]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def swept(kind: str) -> list[str]:
    """The ids of a sweep, in its order."""
    if kind in PLANTED_KINDS:
        from whole_models import mountable

        from llama_core.checkpoints.mistakes import CATALOGUE

        ids = [m.id for m in CATALOGUE.values() if m.checkpoint not in NOT_IN_TRACES]
        return ids if kind.startswith("plain") else [id for id in ids if mountable(id)]
    if kind == "replays":
        from replays import REPLAYS

        return [replay.id for replay in REPLAYS]
    if kind == "pairs":
        return [" + ".join(pair) for pair in PAIRS]
    from whole_models import ENGINES, PEERLESS, SETTINGS, outside

    if kind == "outside":
        return [*outside()]
    return [f"{e} {s}" for e in ENGINES for s in SETTINGS if (e, s) not in PEERLESS]


def layer_for(id: str) -> int:
    """Layer 1 or 2, never 0."""
    return 1 + swept("plain-full").index(id) % 2


def told(result) -> dict:
    cause = result.cause
    return {
        "passed": result.passed,
        "first": result.first,
        "call": result.first_call,
        "named": list(cause.ids) if cause else [],
        "alternatives": list(cause.alternatives) if cause else [],
        "evidence": cause.evidence if cause else "",
        "where": cause.where if cause else "",
    }


class Sweep:
    """Goldens, right traces and planted traces in a temporary folder."""

    def __init__(self, folder: Path):
        self.folder, self.made = folder, 0
        self.rights: dict = {}

    def new(self) -> Path:
        self.made += 1
        return self.folder / f"trace-{self.made}"

    def right(self, engine: str, setting: str):
        from whole_models import ENGINES, golden_of

        if (engine, setting) not in self.rights:
            golden = golden_of(setting, self.folder)
            trace = ENGINES[engine](setting, golden.calls, self.new(), {}, lambda name: True)
            self.rights[engine, setting] = trace
        return self.rights[engine, setting]

    def compared(self, engine: str, setting: str, mistakes, level: str = "full", without_first: bool = False):
        """The comparison, and where the trace first differs; ``without_first`` leaves out the first id."""
        from whole_models import ENGINES, LEVELS, config_of, first_difference, golden_of, model_of

        from llama_core.names import activation_names
        from llama_core.traces import compare
        from llama_core.traces.format import make_call

        golden = golden_of(setting, self.folder)
        shows = LEVELS["boundaries" if level == "boundaries" else "full"]
        calls = golden.calls
        if without_first:
            first = calls[0]
            calls = [make_call([], first.input_ids[:, 1:], first.positions[:, :-1], first.sequences)]
        wrong = ENGINES[engine](setting, calls, self.new(), mistakes, shows)
        names = [n for n in activation_names(config_of(setting).num_hidden_layers) if shows(n)]
        expected = first_difference(self.right(engine, setting), wrong, names)
        if level == "statistics":
            wrong = ENGINES[engine](setting, calls, self.new(), mistakes, shows, statistics_only=True)
        return compare(golden, wrong, model=model_of(setting)), expected

    def planted(self, kind: str, id: str) -> dict:
        """A mistake of the catalogue in one layer."""
        from whole_models import SETTING_OF, planted_in

        engine, _, level = kind.partition("-")
        setting = SETTING_OF.get(id, "plain")
        result, expected = self.compared(engine, setting, planted_in(engine, id, layer_for(id)), level)
        row = {"id": id, "setting": setting, "expected": expected and list(expected)} | told(result)
        return row | {"located": located(row, level), "was named": named(row)}

    def pairs(self, id: str) -> dict:
        """The first of two is found, and after mending it the second."""
        from whole_models import SETTING_OF, replaced

        first, second = id.split(" + ")
        setting = SETTING_OF.get(first) or SETTING_OF.get(second, "plain")
        row = {"id": id, "located": True, "was named": True}
        for layer, mistakes in ((1, {1: first, 2: second}), (2, {2: second})):
            methods = {n: replaced(one) for n, one in mistakes.items()}
            result, expected = self.compared("plain", setting, methods)
            step = {"id": mistakes[layer], "expected": expected and list(expected)} | told(result)
            row[f"layer {layer}"] = step
            row["located"] &= located(step, "full") and _layer(step["first"]) == str(layer)
            row["was named"] &= named(step)
        return row

    def replays(self, id: str) -> dict:
        """A bug from a public thread, in every layer."""
        from replays import REPLAYS

        from llama_core.errors import TraceError

        replay = next(r for r in REPLAYS if r.id == id)
        row = {"id": replay.id, "link": replay.link, "story": replay.story, "expected": list(replay.first)}
        methods, setting = {None: replay.methods}, replay.setting
        try:
            result, differs = self.compared("plain", setting, methods, without_first=replay.without_first)
        except TraceError as refused:
            found = {"first": "input_ids", "call": 0, "named": [], "evidence": str(refused)}
            row |= found | {"differs": row["expected"]}
            row["was named"] = bool(replay.refused) and replay.refused in str(refused)
        else:
            row |= told(result) | {"differs": differs and list(differs)}
            row["was named"] = len(row["named"]) == 1 and row["named"][0] in replay.named
        row["located"] = row["expected"] == [row["first"], row["call"]]
        return row

    def outside(self, id: str) -> dict:
        """An error outside the catalogue, in layer 1: "named" is a known mistake that it is taken for."""
        from whole_models import golden_of, model_of, outside, run_steps

        from llama_core.checkpoints.mistakes import CATALOGUE
        from llama_core.traces import compare

        golden = golden_of("plain", self.folder)
        wrong = run_steps("plain", golden.calls, self.new(), outside()[id].on_layers(1))
        row = {"id": id} | told(compare(golden, wrong, model=model_of("plain")))
        row["located"] = row["passed"] or _layer(row["first"]) == "1"
        row["was named"] = any(one in CATALOGUE for one in row["named"])
        return row

    def right_run(self, id: str) -> dict:
        """An engine without a mistake."""
        engine, setting = id.split(maxsplit=1)
        result, differs = self.compared(engine, setting, {})
        return {"id": id} | told(result) | {"located": result.passed and differs is None, "was named": False}


def located(row: dict, level: str) -> bool:
    """At the right tensor and call; from statistics, in the right layer."""
    if row["expected"] is None:
        return row["passed"]
    if level == "statistics":
        return row["first"] is not None and _layer(row["first"]) == _layer(row["expected"][0])
    return [row["first"], row["call"]] == row["expected"]


def _layer(name: str | None) -> str:
    return name.split(".")[1] if name and name.startswith("layers.") else str(name)


def named(row: dict) -> bool:
    """By its own name, alone, or by one that is the same here."""
    same = {row["id"], *SAME_HERE.get(row["id"], ())}
    return len(row["named"]) == 1 and bool(same & {*row["named"], *row["alternatives"]})


def sweep(kind: str, ids) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as folder:
        found = Sweep(Path(folder))
        for id in ids or swept(kind):
            if kind in PLANTED_KINDS:
                yield found.planted(kind, id)
            else:
                yield getattr(found, {"right": "right_run"}.get(kind, kind))(id)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    for row in sweep(sys.argv[1], sys.argv[2:]):
        print(json.dumps(row), flush=True)
