"""Numbers with their doubt: scores, contrasts, intervals, verdicts."""
