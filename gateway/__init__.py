"""The front door: validates, renders the prompt, tokenises, enqueues, and answers. No torch, no model files."""
