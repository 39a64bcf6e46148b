"""Sound: clips generated as spectrograms from text, classes, length and curves."""

from __future__ import annotations

from pathlib import Path

from multidiff.domain import Domain

domain = Domain(
    name="audio",
    summary="sounds and speech from text, as WAV or FLAC",
    folder=Path(__file__).parent,
    default_checkpoint="audio-digits",
    components={"SpectrogramUNet": "multidiff_audio.network:SpectrogramUNet"},
    pipeline="multidiff_audio.pipeline:AudioPipeline.from_checkpoint",
    prepare="multidiff_audio.prepare:prepare",
    evaluate="multidiff_audio.evaluate:evaluate",
    table="multidiff_audio.evaluate:format_table",
    generate_arguments="multidiff_audio.options:generate_arguments",
    prepare_arguments="multidiff_audio.prepare:add_arguments",
    evaluate_arguments="multidiff_audio.evaluate:add_arguments",
)
