"""The front door: validates, renders the prompt, tokenises, enqueues, and answers. No torch, no model files."""

import os

# gRPC's core reads this when it is imported. Its lines go around our log, are no JSON, and hold bytes as clients have
# sent them, whole lines if they like. Whoever needs them sets it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
