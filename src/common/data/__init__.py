"""Source files to token batches: tasks, sources, the embedded corpus, encoding."""
