"""A case: one computation in several variants, measured in turn with the rates that its floor follows from."""

from collections.abc import Callable, Container, Mapping
from types import MappingProxyType
from typing import NamedTuple

from storydalle.bench.floors import UNITS, Floor, rate_measures
from storydalle.bench.measuring import Measure, in_turn
from storydalle.bench.rows import BenchRow
from storydalle.bench.shapes import Shape

FLOOR = "floor in fp32"
NO_FLOORS: Mapping[str, Floor] = MappingProxyType({})


class Case(NamedTuple):
    """The variants of ``measures`` give seconds; the first one is the reference."""

    name: str
    measures: Mapping[str, Measure]
    unit: str = "ms"
    agreement: Callable[[], Mapping[str, float]] = dict  # of variants, with the reference, when all have run
    floor: Floor | None = None
    own_floors: Mapping[str, Floor] = NO_FLOORS  # of variants
    bytes_a_step: int = 0  # that are read over and over
    warm: Container[str] = ()  # variants that need no run before those that count
    rounds: int | None = None  # by default the shape's


def rows_of(case: Case, shape: Shape) -> list[BenchRow]:
    """Measure a case: a row for each variant, and one for the floor."""
    rates = rate_measures(case.bytes_a_step) if case.floor else {}
    found = in_turn({**case.measures, **rates}, case.rounds or shape.rounds, shape.seconds, case.warm)
    agreement = case.agreement()
    floor = case.floor and case.floor.timing(found)
    reference = found[next(iter(case.measures))].median
    rows = []
    for name in case.measures:
        own = case.own_floors.get(name)
        rows.append(
            BenchRow(
                case.name,
                name,
                found[name],
                ratio=reference / found[name].median,
                unit=case.unit,
                floor=floor.median if floor else None,
                own_floor=own.timing(found).median if own else None,
                agreement=agreement.get(name),
            )
        )
    if floor:
        rows.append(BenchRow(case.name, FLOOR, floor, reference / floor.median, case.unit))
        rows += [BenchRow(case.name, name, found[name], unit=unit) for name, unit in UNITS.items()]
    return rows
