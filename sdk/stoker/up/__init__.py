"""`stoker up`: from a preset and a model to a served endpoint, with the price before anything is rented."""
