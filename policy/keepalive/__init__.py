"""How long idle capacity is kept hot: the candidates, and their evaluation on the recorded load."""
