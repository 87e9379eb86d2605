"""One run: optimiser, loop, evaluation, probes; and the pretraining of the tiny encoder."""
