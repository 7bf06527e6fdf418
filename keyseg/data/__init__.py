"""Examples and where they come from: readers, mixes, masks, keywords, the embedded data set."""
