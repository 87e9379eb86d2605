"""What is to be run, and what the reports print: data and its checks, without torch."""
