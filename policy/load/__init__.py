"""Load history and what follows from it: forecast, peaks, seasonality, and waiting by chance (Erlang C)."""
