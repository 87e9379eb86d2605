"""Tables, plots and the page. Draws; never computes."""
