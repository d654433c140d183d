from tests.simulation.conftest import even, steady

__all__ = ["even", "steady"]
