"""On either side of the fusion: LLaVA that answers, SAM that draws, and their weights."""
