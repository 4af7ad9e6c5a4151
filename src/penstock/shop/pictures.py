"""Drawings in place of photographs: the same product always looks the same, and like its name where that tells."""

from __future__ import annotations

from hashlib import blake2b

from penstock.shop.catalogue import Product
from penstock.shop.shapes import LIKE, OTHER, PALETTE, SHAPES, SPECIAL, TONES


def picture(product: Product) -> str:
    """An SVG drawing of a product, on a ground in its colour."""
    digest = blake2b(product.item.encode(), digest_size=4).digest()
    words = product.name.lower().replace(",", " ").split()
    tone = next((TONES[word] for word in words if word in TONES), PALETTE[digest[0] % len(PALETTE)])
    ground = _mix(tone, "#fbf8f3", 0.80 + digest[1] / 255 * 0.06)
    name = product.name.lower().split(" no. ")[0]
    ends = [end for end in LIKE if name.endswith(f" {end}")] if product.category in SHAPES else []
    shape = SPECIAL[LIKE[max(ends, key=len)]] if ends else SHAPES.get(product.category, OTHER)
    drawn = shape.format(a=tone, b=_mix(tone, "#1d1a17", 0.38), c=_mix(tone, "#ffffff", 0.48))
    size = 0.80 + digest[2] / 255 * 0.16
    turned = f"translate({50 * (1 - size):.2f} {52 * (1 - size):.2f}) scale({size:.3f})"
    if digest[3] & 1:
        # One in two looks the other way.
        turned = f"translate(100 0) scale(-1 1) {turned}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
        f'<rect width="100" height="100" fill="{ground}"/>'
        f'<ellipse cx="50" cy="82" rx="30" ry="4" fill="{_mix(ground, "#1d1a17", 0.12)}"/>'
        f'<g transform="{turned}">{drawn}</g></svg>'
    )


def _mix(one: str, other: str, share: float) -> str:
    """A colour between two, `share` of the way to the other.

    >>> _mix("#000000", "#ffffff", 0.5)
    '#808080'
    """
    parts = (round(int(one[at : at + 2], 16) * (1 - share) + int(other[at : at + 2], 16) * share) for at in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)
