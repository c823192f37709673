"""What is asked: suites, tasks and their items, read from reviewed files."""
