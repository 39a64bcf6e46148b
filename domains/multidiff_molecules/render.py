"""Pictures of molecules."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rdkit import Chem

from multidiff_molecules.chemistry import without_hydrogens

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

COLUMNS = 4
DRAWING = (300, 236)  # pixels of one depiction
CARD = (DRAWING[0] + 12, DRAWING[1] + 64)
GAP = 14
PAGE, BORDER, INK, FAINT = "#eef0f3", "#d5d9df", "#1f2430", "#6b7280"


def grid_png(cards: Sequence[tuple[Chem.Mol, str, str]], text: Mapping[str, object] | None = None) -> bytes:
    """A PNG of sanitised molecules as 2-D depictions, four in a row, each with two lines beneath it.

    Args:
        cards: (molecule, first line, second line); a line too long for the card is cut in the middle.
        text: kept in the file as PNG text, one entry a key; what is not a string as JSON.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    columns = min(COLUMNS, max(1, len(cards)))
    rows = max(1, -(-len(cards) // columns))
    page = Image.new("RGB", (columns * (CARD[0] + GAP) + GAP, rows * (CARD[1] + GAP) + GAP), PAGE)
    pen = ImageDraw.Draw(page)
    for k, card in enumerate(cards):
        _draw_card(page, pen, (GAP + k % columns * (CARD[0] + GAP), GAP + k // columns * (CARD[1] + GAP)), card)
    if not cards:
        _centred(pen, "no valid molecule", page.width // 2, page.height // 2, 18, FAINT)
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value if isinstance(value, str) else json.dumps(value, default=str))
    packed = io.BytesIO()
    page.save(packed, "PNG", pnginfo=info)
    return packed.getvalue()


def _draw_card(page: Image, pen: ImageDraw, corner: tuple[int, int], card: tuple[Chem.Mol, str, str]) -> None:
    from PIL import Image

    mol, first, second = card
    x, y = corner
    pen.rounded_rectangle((x, y, x + CARD[0], y + CARD[1]), 10, fill="white", outline=BORDER)
    page.paste(Image.open(io.BytesIO(_depiction(mol))), (x + 6, y + 6))
    centre, below = x + CARD[0] // 2, y + DRAWING[1] + 22
    _centred(pen, first, centre, below, 15, INK)
    _centred(pen, second, centre, below + 22, 13, FAINT)


def _depiction(mol: Chem.Mol) -> bytes:
    from rdkit.Chem import rdCoordGen
    from rdkit.Chem.Draw import rdMolDraw2D

    flat = without_hydrogens(mol)
    flat.RemoveAllConformers()
    rdCoordGen.AddCoords(flat)
    drawer = rdMolDraw2D.MolDraw2DCairo(*DRAWING)
    options = drawer.drawOptions()
    options.padding = 0.06
    options.bondLineWidth = 2
    options.fixedBondLength = 32  # so that a small molecule is drawn small, not as thick sticks
    drawer.DrawMolecule(rdMolDraw2D.PrepareMolForDrawing(flat, kekulize=True))
    drawer.FinishDrawing()
    return bytes(drawer.GetDrawingText())


def _centred(pen: ImageDraw, line: str, x: int, y: int, size: int, colour: str) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    kept = len(line)
    shown = line
    while pen.textlength(shown, font) > CARD[0] - 20:
        kept -= 1
        shown = f"{line[: kept - kept // 2]}...{line[len(line) - kept // 2 :]}"
    pen.text((x, y), shown, fill=colour, font=font, anchor="mm")
