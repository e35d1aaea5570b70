"""What can go wrong, by name.

Every message says what happened, which rule it broke and what to do. A refusal (a gate that says no, a
suppressed retrain) is a result, not an error; only breakage raises.
"""


class EvergreenError(Exception):
    """Base of everything this project raises on purpose."""


class SpecError(EvergreenError):
    """A model's file is missing, malformed, or names something that does not exist."""


class UnknownModel(EvergreenError):
    """No spec, version or release of that name."""


class DataError(EvergreenError):
    """Rows, columns or labels a step needs are not there."""


class LabelsNotReady(DataError):
    """Too few outcomes have arrived to say anything."""


class FeatureServiceMissing(DataError):
    """The spec names a feature service the registry does not hold."""


class UnknownEntity(DataError):
    """A request names an entity the online store has never seen and the spec says to refuse it."""


class OnlineStoreAway(EvergreenError):
    """The online store does not answer, so what needs its features cannot be answered now."""


class ArtifactError(EvergreenError):
    """A model artifact cannot be loaded, or its bytes changed since it was registered."""


class CheckpointError(ArtifactError):
    """A checkpoint is torn, altered or belongs to another job."""


class TrainingFailed(EvergreenError):
    """The training process ended without a model; the message carries its last output."""


class TrainingAbandoned(EvergreenError):
    """A training was stopped, because it could no longer come to anything; whoever watches its progress raises this."""


class TrainingStopped(TrainingFailed):
    """Told to stop, as before a spot machine is taken away; its state is saved, and running it again goes on there."""


class TooLittleMemory(TrainingFailed):
    """The rows or the model do not fit; the message names what to lower."""


class ReleaseConflict(EvergreenError):
    """Somebody else changed the release first; read it again and decide again."""


class InvalidTransition(EvergreenError):
    """The release cannot go from where it is to where it was told to go."""


class ConfigurationError(EvergreenError):
    """A setting of the environment is wrong: a port that is taken, a service that does not answer."""
