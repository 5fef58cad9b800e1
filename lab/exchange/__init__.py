"""To Hugging Face's layouts and back: settings, weights, tokenizer, generation settings."""
