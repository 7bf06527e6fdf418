"""Keywords: extracted by a language model, put in form by rules, settled by a person."""
