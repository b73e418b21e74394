"""The errors a caller can meet. All derive from :class:`FaceMTLError`, and each message says what to do."""

from __future__ import annotations


class FaceMTLError(Exception):
    """Base of every error that the package raises on purpose."""


class ImageError(FaceMTLError):
    """An image file or array that cannot be read as one picture, or is over the size caps."""


class BoxError(FaceMTLError, ValueError):
    """A face box that is not four finite numbers with x2 > x1 and y2 > y1."""


class ModelError(FaceMTLError):
    """A model that is unknown, damaged, or not the one that was asked for."""


class DeviceError(FaceMTLError):
    """A device that was asked for and is not there."""


class DataError(FaceMTLError):
    """A data set whose files are missing or do not follow the published layout."""


class SplitError(DataError):
    """A split that a data set does not have."""


class ConfigError(FaceMTLError, ValueError):
    """A recipe or an option with an unknown key or an impossible value."""


class SourceError(FaceMTLError):
    """A photo, folder, video or camera that is not there, cannot be opened, or stops giving pictures."""


class OutputError(FaceMTLError):
    """A file that cannot be written as asked."""


class DependencyError(FaceMTLError, ImportError):
    """A package that is not installed, because only one feature needs it."""
