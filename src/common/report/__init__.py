"""Tables, plots and the gallery. Draws; never computes."""
