"""`labelmap` and `overlay`: tars of a PNG an image, made as the server makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sam2_amg.answers.options import AnswerError
from sam2_amg.answers.render import render
from sam2_amg.answers.runs import require_labels
from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.outputs.counts import with_run_lengths
from sam2_amg.batch.outputs.tars import Make, tar_output

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord


def drawable(result: Result) -> Result:
    """The same result, with a Problem in place of its masks if they are more than a label map tells apart."""
    if isinstance(result.found, Problem):
        return result
    try:
        require_labels(result.found)
    except AnswerError as error:
        return replace(result, found=Problem("too_many_masks", str(error)))
    return result


def picture(format: str) -> Make:
    """What makes a PNG in this format of `answers.render`."""

    def make(result: Result, records: list[MaskRecord]) -> bytes:
        assert result.size is not None  # there are records
        return render(format, with_run_lengths(records), result.size, image=result.image).data

    return make


LABELMAP = tar_output(".png", picture("labelmap"), drawable)
OVERLAY = tar_output(".png", picture("png"), drawable, needs_image=True)
