"""Pure decisions: no clock, no chance, no network, no Temporal. Time and ids are arguments."""
