"""The one exception of the video index."""


class VideoIndexError(ValueError):
    """An index that cannot be used as asked: it is another model's, being written to, damaged, or not there."""
