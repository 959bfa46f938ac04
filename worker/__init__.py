"""The accelerator's process: takes jobs from the queue, runs them in batches, sends vectors and scores back."""
