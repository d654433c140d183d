"""The generated reference pages are current."""

from dataclasses import fields

import pytest

from policy.tuning import Tuning
from run.commands.reference import PAGES, REFERENCE, constants


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_current(name):
    assert (REFERENCE / name).read_text() == PAGES[name](), "run: python -m run.commands.reference"


def test_the_lifecycle_page_has_the_table_and_the_diagram():
    page = PAGES["lifecycle.md"]()
    assert "| IDLE | hot | yes | yes |" in page
    assert "| PENDING | booting | no | no |" in page
    assert "    STARTING --> IDLE: reports ready" in page


def test_every_constant_is_documented_with_the_effect_of_doubling_it():
    documented = [constant.name for group in constants() for constant in group.constants]
    assert sorted(documented) == sorted(field.name for field in fields(Tuning))
    assert all(constant.effect and constant.doubled for group in constants() for constant in group.constants)
