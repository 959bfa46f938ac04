"""What ends an evaluation."""


class EvaluationError(Exception):
    """What was asked for cannot be evaluated as things are; the message says why. Nothing that was finished is lost."""
