"""What comes out of the records: frames for tables and figures, one file a kind of analysis."""
