"""Five student reports that fine-tuned one BERT on three tasks, run under one protocol. See README.md."""
