"""What the products of a category look like: a few shapes in a square of 100, in three tones of one colour.

``{a}`` is the main tone, ``{b}`` a darker and ``{c}`` a lighter one.
"""

from __future__ import annotations

from collections.abc import Mapping

SHAPES: Mapping[str, str] = {
    "lamps": '<path fill="{c}" opacity=".7" d="M30 50h40l8 26H22z"/><path fill="{a}" d="M38 24h24l11 27H27z"/>'
    '<path fill="{b}" d="M48 51h4v24h-4z"/><rect fill="{b}" x="36" y="74" width="28" height="5" rx="2.5"/>',
    "tables": '<path fill="{b}" d="M27 48h5l-3 30h-4zM68 48h5l2 30h-4z"/><rect fill="{a}" x="17" y="41" width="66" '
    'height="8" rx="3"/><rect fill="{c}" x="17" y="41" width="66" height="3" rx="1.5"/>',
    "chairs": '<path fill="{b}" d="M34 58h4l-2 22h-4zM62 58h4l2 22h-4z"/><rect fill="{a}" x="33" y="20" width="34" '
    'height="34" rx="9"/><rect fill="{c}" x="29" y="51" width="42" height="10" rx="5"/>',
    "rugs": '<path stroke="{b}" stroke-width="2" d="M20 32v36M24 32v36M76 32v36M80 32v36"/><rect fill="{a}" x="25" '
    'y="30" width="50" height="40" rx="2"/><rect fill="none" stroke="{c}" stroke-width="3" x="31" y="36" width="38" '
    'height="28"/><path fill="{c}" d="M50 41l9 9-9 9-9-9z"/>',
    "bedding": '<rect fill="{b}" x="20" y="60" width="60" height="13" rx="5"/><rect fill="{a}" x="22" y="45" width="56" '
    'height="16" rx="7"/><rect fill="{c}" x="26" y="29" width="48" height="18" rx="9"/>',
    "towels": '<rect fill="{b}" x="24" y="60" width="52" height="15" rx="5"/><rect fill="{a}" x="24" y="44" width="52" '
    'height="15" rx="5"/><rect fill="{c}" x="24" y="28" width="52" height="15" rx="5"/><path fill="{a}" '
    'd="M62 28h5v15h-5z"/><path fill="{b}" d="M62 44h5v15h-5z"/>',
    "cookware": '<rect fill="{b}" x="60" y="45" width="30" height="7" rx="3.5"/><circle fill="{a}" cx="42" cy="50" '
    'r="26"/><circle fill="{b}" cx="42" cy="50" r="20"/><path fill="none" stroke="{c}" stroke-width="2" '
    'd="M30 44a14 14 0 0 1 10-8"/>',
    "knives": '<g transform="rotate(-35 50 50)"><path fill="{c}" d="M10 56V52Q14 42 34 42h24v14z"/><rect fill="{a}" '
    'x="58" y="42" width="32" height="11" rx="4"/><circle fill="{b}" cx="67" cy="47.500" r="1.800"/><circle fill="{b}" '
    'cx="80" cy="47.500" r="1.800"/></g>',
    "mugs": '<path fill="none" stroke="{b}" stroke-width="6" d="M62 42h8a9 9 0 0 1 0 18h-8"/><path fill="{a}" '
    'd="M28 32h38v34a9 9 0 0 1-9 9H37a9 9 0 0 1-9-9z"/><path fill="{c}" d="M28 44h38v8H28z"/>',
    "coffee": '<path fill="{a}" d="M31 26h38l3 9v42a3 3 0 0 1-3 3H31a3 3 0 0 1-3-3V35z"/><path fill="{b}" '
    'd="M31 20h38v9H31z"/><rect fill="{c}" x="36" y="43" width="28" height="26" rx="3"/><ellipse fill="{b}" cx="50" '
    'cy="56" rx="6" ry="9" transform="rotate(25 50 56)"/><path stroke="{c}" stroke-width="1.500" fill="none" '
    'd="M53 48q-6 8-5 16"/>',
    "tea": '<rect fill="{a}" x="30" y="34" width="40" height="44" rx="4"/><rect fill="{b}" x="34" y="23" width="32" '
    'height="12" rx="3"/><circle fill="{c}" cx="50" cy="56" r="14"/><path fill="{b}" d="M42 62q0-14 17-14 0 15-17 14z"/>',
    "chocolate": '<rect fill="#5b3a2c" x="30" y="20" width="40" height="40" rx="3"/><path stroke="#7d5540" stroke-width="2" '
    'd="M43.300 20v38M56.600 20v38M30 33h40M30 46h40"/><path fill="{a}" d="M28 56l5-3 5 3 5-3 5 3 5-3 5 3 5-3 5 3 4-3v27H28z"/>'
    '<rect fill="{c}" x="38" y="62" width="24" height="10" rx="2"/>',
    "candles": '<path fill="#f2b84b" d="M50 16q9 11 0 18-9-7 0-18z"/><path stroke="{b}" stroke-width="2" d="M50 32v10"/>'
    '<rect fill="{a}" x="34" y="41" width="32" height="38" rx="4"/><rect fill="{c}" x="34" y="53" width="32" height="14"/>',
    "soaps": '<ellipse fill="{b}" cx="50" cy="69" rx="34" ry="7"/><rect fill="{a}" x="24" y="42" width="52" height="26" '
    'rx="13"/><rect fill="{c}" x="33" y="49" width="34" height="10" rx="5"/><circle fill="{c}" cx="66" cy="32" r="6"/>'
    '<circle fill="{c}" cx="54" cy="26" r="3.500"/>',
    "notebooks": '<rect fill="{c}" x="33" y="24" width="42" height="56" rx="3"/><rect fill="{a}" x="28" y="20" width="44" '
    'height="56" rx="4"/><path fill="{b}" d="M28 24a4 4 0 0 1 4-4h3v56h-3a4 4 0 0 1-4-4zM62 20h3v56h-3z"/>',
    "pens": '<g transform="rotate(40 50 50)"><rect fill="{a}" x="45" y="12" width="10" height="54" rx="4"/><path '
    'fill="{c}" d="M45 66h10l-5 18z"/><path fill="{b}" d="M45 34h10v4H45zM55 15h3v22h-3z"/></g>',
    "backpacks": '<path fill="none" stroke="{b}" stroke-width="5" d="M40 28v-4a10 10 0 0 1 20 0v4"/><path fill="{a}" '
    'd="M28 44a22 18 0 0 1 44 0v30a6 6 0 0 1-6 6H34a6 6 0 0 1-6-6z"/><rect fill="{c}" x="35" y="54" width="30" '
    'height="19" rx="5"/><path fill="{b}" d="M35 60h30v3H35z"/>',
    "wallets": '<rect fill="{a}" x="20" y="32" width="60" height="42" rx="6"/><path fill="{b}" '
    'd="M20 38a6 6 0 0 1 6-6h42v5H26z"/><rect fill="{c}" x="58" y="46" width="24" height="14" rx="5"/><circle fill="{b}" '
    'cx="66" cy="53" r="2.500"/>',
    "headphones": '<path fill="none" stroke="{b}" stroke-width="6" d="M26 58V50a24 24 0 0 1 48 0v8"/><rect fill="{a}" '
    'x="19" y="52" width="16" height="26" rx="7"/><rect fill="{a}" x="65" y="52" width="16" height="26" rx="7"/>'
    '<path fill="{c}" d="M31 54h4v22h-4zM65 54h4v22h-4z"/>',
    "speakers": '<rect fill="{a}" x="32" y="16" width="36" height="66" rx="7"/><circle fill="{b}" cx="50" cy="59" '
    'r="14"/><circle fill="{c}" cx="50" cy="59" r="6"/><circle fill="{b}" cx="50" cy="32" r="8"/><circle fill="{c}" '
    'cx="50" cy="32" r="3"/>',
    "jackets": '<path fill="{a}" d="M37 20h26l14 8 6 40-10 2-5-22v32H32V48l-5 22-10-2 6-40z"/><path fill="{b}" '
    'd="M38 20l12 15 12-15-4-2H42zM49 35h2v45h-2z"/><path fill="{c}" d="M36 60h9v3h-9zM55 60h9v3h-9z"/>',
    "sneakers": '<path fill="{a}" d="M14 44q9 5 17 0l7-10 24 17q6 5 20 6 6 2 5 10H14z"/><path fill="{c}" '
    'd="M13 66h75q0 9-8 9H20q-7 0-7-9z"/><path stroke="{b}" stroke-width="3" d="M38 47l7-6M46 53l7-6M54 58l6-5"/>',
    "scarves": '<path fill="{b}" d="M50 36l15 4 2 36H54z"/><path fill="{a}" d="M34 36h19l-1 44H36z"/><path '
    'stroke="{c}" stroke-width="3" d="M36 68h16M36 74h16M55 66h11M55 71h12"/><rect fill="{c}" x="26" y="24" width="48" '
    'height="17" rx="8.500"/><path fill="{a}" d="M42 24h12l-4 17H38z"/>',
    "planters": '<path fill="none" stroke="{b}" stroke-width="3" d="M50 54V34"/><path fill="#5d8a5a" '
    'd="M50 46Q26 44 28 22q22 2 22 24z"/><path fill="#78a673" d="M50 50q0-26 24-28 2 26-24 28z"/><path fill="{a}" '
    'd="M30 54h40l-5 26H35z"/><rect fill="{c}" x="27" y="50" width="46" height="8" rx="2"/>',
}

SPECIAL: Mapping[str, str] = {
    "pendant": '<path stroke="{b}" stroke-width="2" d="M50 6v28"/><path fill="{a}" d="M24 58a26 26 0 0 1 52 0z"/><ellipse '
    'fill="{c}" cx="50" cy="58" rx="26" ry="5"/><rect fill="{b}" x="45" y="28" width="10" height="7" rx="2"/>',
    "floor lamp": '<path fill="{a}" d="M40 12h20l8 20H32z"/><path fill="{b}" d="M48.500 32h3v46h-3z"/><rect fill="{b}" '
    'x="37" y="77" width="26" height="4" rx="2"/>',
    "desk lamp": '<path fill="none" stroke="{b}" stroke-width="4" stroke-linecap="round" stroke-linejoin="round" '
    'd="M42 76L30 50 56 30"/><path fill="{a}" d="M52 22l22 12-16 15-12-9z"/><rect fill="{a}" x="28" y="74" width="30" '
    'height="6" rx="3"/><path fill="{c}" d="M74 34L58 49l6 4 12-12z"/>',
    "globe light": '<circle fill="{c}" cx="50" cy="42" r="22"/><circle fill="{a}" cx="50" cy="42" r="16" opacity=".75"/><rect '
    'fill="{b}" x="38" y="64" width="24" height="14" rx="4"/>',
    "stool": '<path fill="{b}" d="M36 46h4l-6 34h-4zM60 46h4l6 34h-4zM48 46h4v34h-4z"/><rect fill="{a}" x="28" y="36" '
    'width="44" height="11" rx="5.500"/><rect fill="{c}" x="28" y="36" width="44" height="5" rx="2.500"/>',
    "armchair": '<rect fill="{a}" x="28" y="26" width="44" height="36" rx="10"/><rect fill="{c}" x="32" y="50" width="36" '
    'height="14" rx="5"/><rect fill="{b}" x="20" y="42" width="13" height="28" rx="6"/><rect fill="{b}" x="67" y="42" '
    'width="13" height="28" rx="6"/><path fill="{b}" d="M30 68h40v5H30zM29 72h4v8h-4zM67 72h4v8h-4z"/>',
    "coffee table": '<ellipse fill="{b}" cx="50" cy="48" rx="32" ry="9"/><ellipse fill="{a}" cx="50" cy="45" rx="32" '
    'ry="9"/><path fill="{b}" d="M48 54h4v22h-4z"/><path fill="{b}" d="M36 80q14-10 28 0z"/>',
    "desk": '<rect fill="{a}" x="16" y="36" width="68" height="7" rx="2"/><rect fill="{c}" x="56" y="43" width="24" '
    'height="26"/><path fill="{b}" d="M20 43h4v37h-4zM76 43h4v37h-4zM64 50h8v2h-8zM64 61h8v2h-8z"/>',
    "round rug": '<circle fill="{a}" cx="50" cy="48" r="32"/><circle fill="none" stroke="{c}" stroke-width="4" cx="50" '
    'cy="48" r="23"/><circle fill="{b}" cx="50" cy="48" r="11"/>',
    "runner": '<rect fill="{a}" x="36" y="16" width="28" height="64" rx="2"/><path stroke="{c}" stroke-width="3" fill="none" '
    'd="M36 28h28M36 68h28M50 36l8 12-8 12-8-12z"/>',
    "lidded pot": '<rect fill="{a}" x="26" y="42" width="48" height="34" rx="6"/><path fill="{b}" d="M18 48h8v6h-8zM74 48h8v6h-8z"/>'
    '<path fill="{c}" d="M25 42q25-16 50 0z"/><circle fill="{b}" cx="50" cy="31" r="4"/>',
    "cleaver": '<g transform="rotate(-25 50 50)"><path fill="{c}" d="M14 38h44v24H18q-4 0-4-5z"/><rect fill="{a}" x="58" '
    'y="40" width="32" height="11" rx="4"/><circle fill="{b}" cx="21" cy="44" r="2.500"/></g>',
    "cup on a saucer": '<path fill="none" stroke="{b}" stroke-width="5" d="M66 46h5a8 8 0 0 1 0 16h-8"/><path fill="{a}" '
    'd="M28 40h40q0 30-20 30T28 40z"/><ellipse fill="{c}" cx="48" cy="74" rx="28" ry="5"/><ellipse fill="{b}" cx="48" '
    'cy="40" rx="20" ry="4"/>',
    "tumbler": '<path fill="{a}" d="M32 26h36l-5 52H37z"/><path fill="{c}" d="M33.500 42h33l-1.500 14H35z"/><rect '
    'fill="{b}" x="30" y="22" width="40" height="7" rx="3"/>',
    "tote": '<path fill="none" stroke="{b}" stroke-width="4" d="M38 42V30a12 12 0 0 1 24 0v12"/><path fill="{a}" '
    'd="M24 40h52l4 40H20z"/><rect fill="{c}" x="40" y="54" width="20" height="13" rx="2"/>',
    "duffel": '<path fill="none" stroke="{b}" stroke-width="4" d="M36 48V40a14 12 0 0 1 28 0v8"/><rect fill="{a}" x="16" '
    'y="44" width="68" height="34" rx="15"/><path fill="{c}" d="M34 44h5v34h-5zM61 44h5v34h-5z"/>',
    "earbuds": '<circle fill="{a}" cx="36" cy="42" r="11"/><rect fill="{a}" x="37" y="42" width="8" height="28" rx="4"/>'
    '<circle fill="{a}" cx="64" cy="42" r="11"/><rect fill="{a}" x="55" y="42" width="8" height="28" rx="4"/><circle '
    'fill="{c}" cx="33" cy="42" r="5"/><circle fill="{c}" cx="67" cy="42" r="5"/>',
    "soundbar": '<rect fill="{a}" x="12" y="44" width="76" height="20" rx="7"/><rect fill="{b}" x="18" y="49" width="50" '
    'height="10" rx="5"/><circle fill="{c}" cx="78" cy="54" r="4"/>',
    "turntable": '<rect fill="{a}" x="18" y="32" width="64" height="46" rx="5"/><circle fill="{b}" cx="44" cy="55" r="19"/>'
    '<circle fill="{c}" cx="44" cy="55" r="6"/><path fill="none" stroke="{c}" stroke-width="3" d="M73 40v18l-12 8"/>',
    "gilet": '<path fill="{a}" d="M38 20h24l9 7-3 16v37H32V43l-3-16z"/><path fill="{b}" '
    'd="M38 20l12 14 12-14-4-2H42zM49 34h2v46h-2z"/><path stroke="{c}" stroke-width="2" d="M32 50h16M52 50h16M32 64h16M52 64h16"/>',
    "long coat": '<path fill="{a}" d="M37 18h26l14 8 5 40-10 2-4-18 2 34H30l2-34-4 18-10-2 5-40z"/><path fill="{b}" '
    'd="M36 20q14-14 28 0l-14 14zM49 34h2v50h-2z"/><path fill="{c}" d="M35 60h9v4h-9zM56 60h9v4h-9z"/>',
    "high-tops": '<path fill="{a}" d="M20 24h24v20l26 12q14 4 14 12H20z"/><path fill="{c}" d="M19 66h66q0 10-8 10H26q-7 0-7-10z'
    'M44 26h5v18l-5-2z"/><path stroke="{b}" stroke-width="3" d="M40 32h8M40 39h8M48 47l6-5M56 51l6-5"/>',
    "slip-ons": '<path fill="{a}" d="M14 50q4-10 12-8 8 8 20 4 8 8 28 10 12 2 12 12H14z"/><path fill="{c}" '
    'd="M13 66h74q0 9-8 9H20q-7 0-7-9z"/><path fill="{b}" d="M26 42q8 8 20 4l-3 5q-9 2-17-4z"/>',
    "beanie": '<path fill="{a}" d="M24 62q0-36 26-36t26 36z"/><rect fill="{b}" x="21" y="58" width="58" height="17" '
    'rx="7"/><circle fill="{c}" cx="50" cy="23" r="8"/><path stroke="{c}" stroke-width="2" d="M32 60v13M41 60v13M50 60v13M59 60v13M68 60v13"/>',
    "mittens": '<path fill="{a}" d="M30 70V40q0-14 12-14t12 14v30z"/><path fill="{a}" d="M52 56q12-2 10-12-1-6-6-4-4 2-4 8z"/>'
    '<rect fill="{b}" x="27" y="66" width="30" height="12" rx="4"/><path fill="{c}" d="M30 52h24v4H30z"/>',
    "vase": '<path stroke="#5d8a5a" stroke-width="3" fill="none" d="M48 36Q44 20 36 14M51 36q2-16 12-20"/><circle fill="#d98c8c" '
    'cx="35" cy="13" r="6"/><circle fill="#e5b567" cx="65" cy="14" r="6"/><path fill="{a}" '
    'd="M42 36h16q-2 10 6 20 6 24-14 24t-14-24q8-10 6-20z"/><path fill="{c}" d="M40 34h20v5H40z"/>',
    "watering can": '<path fill="none" stroke="{b}" stroke-width="4" d="M62 48q20-4 16 16-2 8-14 8"/><path fill="{b}" '
    'd="M36 62L16 42l4-4 20 14z"/><path fill="{a}" d="M34 44h30l4 34H32z"/><path fill="{c}" d="M34 44h30v6H33z"/>',
    "box of sweets": '<rect fill="{a}" x="20" y="34" width="60" height="44" rx="4"/><rect fill="{c}" x="25" y="39" width="50" height="34"/>'
    '<g fill="#5b3a2c"><circle cx="35" cy="49" r="6"/><circle cx="50" cy="49" r="6"/><circle cx="65" cy="49" r="6"/><circle '
    'cx="35" cy="64" r="6"/><circle cx="50" cy="64" r="6"/><circle cx="65" cy="64" r="6"/></g>',
}
"""The same for some kinds of product that look otherwise than their category."""

LIKE: Mapping[str, str] = {
    "wall light": "globe light", "night light": "globe light", "reading lamp": "desk lamp", "clip lamp": "desk lamp",
    "bar stool": "stool", "footstool": "stool", "lounge chair": "armchair", "side table": "coffee table",
    "console": "desk", "hallway mat": "runner", "saucepan": "lidded pot", "casserole": "lidded pot", "stockpot": "lidded pot",
    "milk pan": "lidded pot", "teacup": "cup on a saucer", "espresso cup": "cup on a saucer", "cappuccino cup": "cup on a saucer", "travel mug": "tumbler",
    "weekender": "duffel", "messenger bag": "tote", "sleep buds": "earbuds", "radio": "soundbar", "parka": "long coat",
    "raincoat": "long coat", "loafers": "slip-ons", "truffles": "box of sweets", "pralines": "box of sweets", "chocolate box": "box of sweets",
    **{name: name for name in SPECIAL},
}  # fmt: skip
"""Which of them a product is drawn as, by the end of its name."""

OTHER = (
    '<rect fill="{a}" x="24" y="34" width="52" height="44" rx="4"/><path fill="{b}" d="M24 34l8-12h36l8 12z"/>'
    '<path fill="{c}" d="M45 22h10v24l-5-4-5 4z"/>'
)

TONES: Mapping[str, str] = {
    "walnut": "#7a5238", "oak": "#c39a63", "brass": "#c19a3f", "copper": "#b8713f", "linen": "#cbbd9f",
    "paper": "#d9d2bf", "steel": "#8b97a3", "glass": "#8fb5b8", "rattan": "#c7a06c", "pine": "#d0ab72",
    "beech": "#cfa877", "ash": "#b9a88d", "leather": "#8a5a3c", "velvet": "#6d4a7c", "wicker": "#b98f5b",
    "canvas": "#8d9272", "wool": "#9a8577", "cotton": "#9fb2c4", "silk": "#c58a9b", "jute": "#b49a6d",
    "sisal": "#c0ab7f", "satin": "#b98fa8", "flannel": "#7d8a9c", "bamboo": "#9fae6c", "terry": "#7fa5a8",
    "velour": "#85678f", "cast-iron": "#50565c", "carbon-steel": "#66717a", "enamel": "#4f7fa3", "ceramic": "#d0b9a1",
    "damascus": "#7c8791", "ebony": "#4b403c", "rosewood": "#8b4a3e", "olive-wood": "#a08a54", "maple": "#cda873",
    "stoneware": "#8a9aa0", "earthenware": "#b5785a", "porcelain": "#a9b8c9", "bone-china": "#c9bfae",
    "beeswax": "#d5a13c", "soy": "#d6c8a6", "amber": "#c98a35", "lavender": "#9484b8", "fig": "#7a5a73",
    "rose": "#c77f8e", "bergamot": "#b9b24f", "charcoal": "#565b60", "cedar": "#9b6146", "olive-oil": "#97a05b",
    "oatmeal": "#c9b796", "kraft": "#b48a5e", "recycled": "#a3a58f", "resin": "#5f7fae", "lacquer": "#a63d3d",
    "suede": "#a77f5e", "nylon": "#4f6f8a", "ripstop": "#5f7d6a", "felt": "#7f7f8f", "cork": "#c29a6a",
    "graphite": "#5a6068", "ivory": "#d3c7ad", "coral": "#d9765f", "mint": "#79b59d", "denim": "#516f98",
    "tweed": "#857a66", "down": "#6f8fb0", "softshell": "#4d7d84", "hemp": "#a39b6d", "mesh": "#6a90a8",
    "knit": "#b37f6a", "cashmere": "#b09a8c", "merino": "#7c8f8a", "gauze": "#c3b4b9", "terracotta": "#c06f4a",
    "clay": "#b27a5b", "zinc": "#93a0a5", "concrete": "#a5a39c", "seagrass": "#aaa263", "peppermint": "#6fae94",
    "jasmine": "#cdb75c", "sencha": "#7f9f55", "chamomile": "#d2b04c", "dark": "#5a3a2e", "orange": "#d48841",
    "aluminium": "#9aa5ad", "fabric": "#8c8aa0", "calfskin": "#94623f", "carbon": "#4a5057",
}  # fmt: skip
"""The colours of materials, by the word in a product's name."""

PALETTE = ("#6f8f8b", "#a3745c", "#7a86a8", "#b08f4f", "#8a6f8c", "#6d8f5f", "#b0706f", "#5f8aa3")
"""For those that name no material."""
