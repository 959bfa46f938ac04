"""What calls need not ask the model for: answers that are kept, and what other calls are finding out already."""
