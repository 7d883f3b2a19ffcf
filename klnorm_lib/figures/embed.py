"""A figure inside a page, without any file beside it."""

from __future__ import annotations

import base64
import html
import io

COLOURS = 64  # of a picture within a page: a quarter of the bytes, and no difference to be seen


def as_html(figure, alt: str, caption: str) -> str:
    """A figure as HTML that needs no file beside the page; closes it."""
    import matplotlib.pyplot as plt
    from PIL import Image

    png, small = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    plt.close(figure)
    Image.open(png).convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
    picture = base64.b64encode(small.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{picture}" alt="{html.escape(alt, quote=True)}" '
        f'style="max-width:100%; height:auto">\n<figcaption>{html.escape(caption)}</figcaption></figure>'
    )
