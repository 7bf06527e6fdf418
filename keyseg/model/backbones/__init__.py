"""The backbones on either side of the fusion: LLaVA answers, SAM draws; and their weights."""
