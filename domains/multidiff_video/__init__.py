"""Video: short clips generated from text, from a picture, or around frames that are given."""

from __future__ import annotations

from pathlib import Path

from multidiff.domain import Domain

domain = Domain(
    name="video",
    summary="short clips from text, pictures or other clips, as MP4, GIF, WebP or PNG",
    folder=Path(__file__).parent,
    default_checkpoint="video-digits",
    components={"VideoUNet": "multidiff_video.network:VideoUNet"},
    pipeline="multidiff_video.pipeline:VideoPipeline.from_checkpoint",
    prepare="multidiff_video.prepare:prepare",
    evaluate="multidiff_video.evaluate:evaluate",
    table="multidiff_video.evaluate:format_table",
    generate_arguments="multidiff_video.options:generate_arguments",
    prepare_arguments="multidiff_video.prepare:add_arguments",
    evaluate_arguments="multidiff_video.evaluate:add_arguments",
)
