"""What a checkpoint is: data that the reference, the gates and the notebooks read."""

from __future__ import annotations

from dataclasses import dataclass

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.families import ALL, LLAMA, check_family
from llama_core.checkpoints.procedures import Procedure
from llama_core.errors import CheckpointError


@dataclass(frozen=True)
class Checkpoint:
    """A stage of validation.

    Attributes:
        id: "0", "1", "1B", "2" … "10".
        formula: in one line.
        inputs: name -> axes of what an implementation receives. Axes are the project's letters.
        outputs: name -> axes of what it must return; ``N`` in a name stands for every layer.
        welcome: name -> axes of what it may return besides, to be located more exactly.
        reads: the configuration's fields that the formula needs, in words; empty for none.
        must_hold: what the cases establish, in a sentence.
        procedure: the float64 reference.
        cases: of a plain Llama: what is asked of every implementation.
        neighbours: cases of models that have a step more; asked of llama_core, and of others by the family's name.
        notebook: where it is taught.
    """

    id: str
    title: str
    formula: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    must_hold: str
    procedure: Procedure
    cases: tuple[Case, ...]
    notebook: str
    welcome: dict[str, str]
    reads: str = ""
    neighbours: tuple[Case, ...] = ()

    def case(self, name: str) -> Case:
        """The case of any family with this name. Raises CheckpointError where there is none."""
        for case in self.every_case:
            if case.name == name:
                return case
        raise CheckpointError(
            f"checkpoint {self.id} has no case {name!r}",
            key="case",
            expected=" | ".join(c.name for c in self.every_case),
            actual=name,
        )

    @property
    def small_cases(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if not case.large)

    @property
    def every_case(self) -> tuple[Case, ...]:
        """Those of the neighbours, too."""
        return (*self.cases, *self.neighbours)

    @property
    def every_small_case(self) -> tuple[Case, ...]:
        return tuple(case for case in self.every_case if not case.large)

    def of_family(self, family: str) -> tuple[Case, ...]:
        """The cases of a family: ``llama``, a neighbour's name, or ``all``.

        A neighbour that has no cases here is a plain Llama as far as this checkpoint goes, and has a Llama's cases.
        Raises CheckpointError for any other name.
        """
        if check_family(family) == ALL:
            return self.every_case
        found = tuple(case for case in self.neighbours if case.family == family)
        return self.cases if family == LLAMA else found or self.cases

    def export(self, folder, dtype: str = "float32", family: str = LLAMA) -> None:
        """Write inputs, weights, expected values and tolerances for any language (``exchange.export_cases``)."""
        from llama_core.checkpoints.exchange import export_cases

        export_cases(self, folder, dtype, self.of_family(family))
