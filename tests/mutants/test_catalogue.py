"""The faults to plant fit the code as it is; the planting itself is ``tox -e mutants``."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import ROOT
from tests.mutants.catalogue import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_can_be_planted(mutant: Mutant) -> None:
    """If this fails, the code has changed: say in ``catalogue.py`` where the fault is now."""
    assert (ROOT / "taskq" / mutant.file).read_text().count(mutant.old) == 1


def test_each_fault_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
