"""Where pretrained weights come from: the hub, a mirror folder, any folder, or the encoders that ship with us."""

from klnorm_lib.lazily import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "SOURCES": "sources",
        "EncoderSource": "sources",
        "load": "loading",
        "names": "sources",
        "resolve": "sources",
    },
)
