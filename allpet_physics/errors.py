"""What can be wrong with a user's input, one class per kind of mistake.

Every class carries the exit code that the command line returns for it, so that a script can tell a
typing mistake from a missing DICOM tag. Inside Python all of them are ``ValueError``.
"""


class InputError(ValueError):
    """An argument, a file or an option is not what it must be."""

    exit_code = 2


class GeometryError(InputError):
    """Shapes, spacings, grids or arcs do not fit together."""

    exit_code = 3


class MetadataError(InputError):
    """A file lacks, or contradicts, information that the result depends on."""

    exit_code = 4


class EmptyROIWarning(UserWarning):
    """A region of interest holds no voxel; its projection is zero everywhere."""

    exit_code = 5
