"""The command line: reads arguments, calls runs, prints."""
