"""Tasks, scores, paired statistics, reports; knows models only as a Protocol."""
