"""The exceptions that gpurerank raises.

GPURerankError
├── InputError (ValueError)      the caller's value is wrong: which item, what it is, the limit
│   └── DataError                a file or folder does not hold what it should
├── ModelError                   a model cannot be loaded, or gives no usable score
│   ├── ModelNotFoundError       neither a folder, nor cached, nor to be had from the hub
│   └── WeightsError             a weight file fails its checksum or misses a tensor
├── ScoringError                 scoring failed for a reason that is not the caller's
│   ├── NotFiniteError           a model returned NaN or infinity for a pair
│   ├── OutOfMemoryError (MemoryError)  one pair alone does not fit into the device's memory
│   ├── DeviceError              the device is lost; only a new process helps
│   └── RemoteError              a server cannot be reached, refuses, or gives no usable answer
│       └── OverloadedError      a server has too much to do, each time it was asked
├── DeadlineError (TimeoutError) the deadline passed before every pair was scored
├── MissingExtraError (ImportError)  a package of an optional part is not installed
└── ClosedError                  the object was closed
"""


class GPURerankError(Exception):
    """Everything that gpurerank raises on purpose."""


class InputError(GPURerankError, ValueError):
    """A value from the caller is wrong."""


class DataError(InputError):
    """A file or folder does not hold what it should."""


class ModelError(GPURerankError):
    """A model cannot be loaded, or is not one that gives a relevance score."""


class ModelNotFoundError(ModelError):
    """A model is neither a folder, nor in the local cache, nor to be had from the hub."""


class WeightsError(ModelError):
    """A weight file fails its checksum or does not hold the tensors that it should."""


class ScoringError(GPURerankError):
    """Scoring failed for a reason that is not the caller's."""


class NotFiniteError(ScoringError):
    """A model returned NaN or infinity."""


class OutOfMemoryError(ScoringError, MemoryError):
    """A batch does not fit into the memory of its device."""


class DeviceError(ScoringError):
    """The device, or the thread that runs it, answers no more; only a new process helps."""


class RemoteError(ScoringError):
    """A server cannot be reached, refuses, or answers what cannot be used.

    Attributes:
        status: The HTTP status; None where there was no answer.
        retry_after_s: Seconds that the server asked to wait; None where it did not.
        transient: Whether the same request may succeed later.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.transient = transient


class OverloadedError(RemoteError):
    """A server has too much to do, each time it was asked; ask less of it, or later."""


class DeadlineError(GPURerankError, TimeoutError):
    """The deadline passed before every pair was scored."""


class MissingExtraError(GPURerankError, ImportError):
    """A package of an optional part is not installed: which, and how to get it."""


class ClosedError(GPURerankError):
    """The object was closed and can score no more."""
