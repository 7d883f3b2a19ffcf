"""Where pretrained weights come from: the hub, a mirror folder, any folder, or the encoders that ship with us."""

from klnorm_lib.encoders.loading import load
from klnorm_lib.encoders.sources import SOURCES, EncoderSource, names, resolve

__all__ = ["SOURCES", "EncoderSource", "load", "names", "resolve"]
