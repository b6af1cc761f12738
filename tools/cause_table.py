"""How many mistakes in whole models ``llama-core compare`` locates and names: the catalogue, and public bugs.

Each mistake is planted in one layer of a whole model, never layer 0, and its trace is compared with the golden one
(``tests/traces/cause_sweep.py``, which says what the kinds are). Where it goes wrong is known from the same engine
without the mistake.

    python tools/cause_table.py                           all kinds, prints the table: about twenty minutes
    python tools/cause_table.py replays pairs             some of them
    python tools/cause_table.py KIND --write FOLDER       also writes them to causes.json and causes.md there, beside
                                                          the kinds that are there already
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "traces"))

from cause_sweep import KINDS, PLANTED_KINDS, running  # noqa: E402

WORDS = {
    "full": "every tensor",
    "boundaries": "ids, block outputs, cached keys and values, logits",
    "statistics": "statistics only",
}
ENGINES = {"plain": "Llama by hand", "transformers": "transformers' copy"}


def share(count: int, of: int) -> str:
    return f"{count} of {of} ({100 * count / of:.0f} %)" if of else "-"


def line(kind: str, rows: list[dict]) -> tuple[str, ...]:
    """What was planted, how many make a difference, are located, are named, and pass where nothing differs."""
    real = [r for r in rows if r.get("expected", True) is not None]
    alike = [r for r in rows if r.get("expected", True) is None]
    located = share(sum(r["located"] for r in real), len(real))
    by_name = share(sum(r["was named"] for r in real), len(real))
    quiet = share(sum(r["passed"] for r in alike), len(alike))
    if kind in PLANTED_KINDS:
        engine, _, level = kind.partition("-")
        by_name = "not possible" if level == "statistics" else by_name
        return f"catalogue, in {ENGINES[engine]}, shown: {WORDS[level]}", str(len(rows)), located, by_name, quiet
    if kind == "right":
        return "no mistake: judged right", str(len(rows)), share(sum(r["located"] for r in rows), len(rows)), "-", "-"
    words = {
        "pairs": "two mistakes in two layers, the second after mending the first",
        "replays": "bugs from public threads",
        "outside": "errors of no known kind: taken for a known mistake",
    }
    return words[kind], str(len(rows)), located, by_name, "-"


def where(place: list | None) -> str:
    return f"{place[0]} in call {place[1]}" if place and place[0] else "nowhere"


def markdown(found: dict[str, list[dict]]) -> str:
    lines = [
        "# Mistakes in whole models: located and named",
        "",
        "Small random models of three layers, float32, prefill and decode. A mistake of the catalogue is planted in "
        "layer 1 or 2, a public bug in every layer. Located: the first wrong tensor and call are those in which the "
        "same engine without the mistake differs first (from statistics: the layer). Named: by its own name, alone. "
        "A mistake that changes no value of a real token must be judged right. "
        "Written by `python tools/cause_table.py --write benchmarks/results`.",
        "",
        "| planted | tried | located | named | right where nothing differs |",
        "|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(line(kind, found[kind]))} |" for kind in KINDS if kind in found),
        "",
    ]
    missed = [
        f"| {kind} | `{r['id']}` | {where(r.get('expected'))} | {where([r.get('first'), r.get('call')])} "
        f"| {', '.join(r.get('named') or r.get('alternatives') or ['unknown'])} |"
        for kind in KINDS
        for r in found.get(kind, ())
        if kind not in ("outside", "right")
        if not r["located"] or not (r["was named"] or kind.endswith("statistics") or r.get("expected", 1) is None)
    ]
    if missed:
        lines += ["Not located, or not named:", "", "| kind | mistake | goes wrong at | found at | cause |"]
        lines += ["|---|---|---|---|---|", *missed, ""]
    if "replays" in found:
        lines += ["The bugs from public threads:", "", "| bug | what went wrong there | located | named as |"]
        lines += ["|---|---|---|---|"]
        for r in found["replays"]:
            cause = ", ".join(f"`{id}`" for id in r["named"]) or ("refused" if r["was named"] else "unknown")
            place = where([r["first"], r["call"]]) if r["located"] else "no"
            lines.append(f"| [{r['id']}]({r['link']}) | {r['story']} | {place} | {cause} |")
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="How many mistakes in whole models are located and named.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=" ".join(KINDS))
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no such kind: {' '.join(sorted(unknown))}; there are {' '.join(KINDS)}")
    file = options.write / "causes.json" if options.write else None
    found = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}
    for kind in options.kinds or KINDS:
        found[kind] = list(running(kind))
        print(" | ".join(line(kind, found[kind])), flush=True)
        if file:
            options.write.mkdir(parents=True, exist_ok=True)
            rows = ",\n".join(
                f' "{kind}": [\n'
                + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in found[kind])
                + "\n ]"
                for kind in KINDS
                if kind in found
            )
            file.write_text("{\n" + rows + "\n}\n", encoding="utf-8")
            (options.write / "causes.md").write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
