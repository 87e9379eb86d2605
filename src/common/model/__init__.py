"""The encoder, its published weights, and the heads that make it a multitask model."""
