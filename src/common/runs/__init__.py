"""Runs: what a notebook holds, the workers that train what it lacks, and the store of the records."""
