"""Run folders: settings, weights, text, tokenizer, log, lock."""
