"""The door for the shell: photographs in files -> files of masks."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_amg.answers.options import AnswerError, Options
from sam2_amg.answers.render import render
from sam2_amg.config import GeneratorConfig, Limits, ModelConfig
from sam2_amg.decoding.decode import decode_image
from sam2_amg.errors import ParameterError, RequestError
from sam2_amg.parameters import Parameters
from sam2_amg.process.program import command_for, prefix_for

if TYPE_CHECKING:
    from sam2_amg.library import Segmenter


@dataclass(frozen=True)
class SegmentConfig:
    """All settings of `segment`'s command line.

    `targets` are photographs, each with the file for its masks, or None for standard output. `generator` has what
    `parameters` do not say.
    """

    targets: tuple[tuple[Path, Path | None], ...]
    model: ModelConfig
    format: str
    parameters: Parameters
    options: Options
    generator: GeneratorConfig
    limits: Limits
    compile_cache: Path | None = None


class _SkipError(Exception):
    """A photograph has no masks written. The message is one line without the photograph's name."""


def segment_files(config: SegmentConfig) -> int:
    """Segments one photograph after another; says on standard error how far it is.

    Returns the exit status: 1 if a photograph could not be read, or its masks not written, else 0. The others are
    segmented all the same. Raises StartupError if the model cannot be loaded, which happens with the first photograph
    that can be read.
    """
    job, status = _Job(config), 0
    for i, (photo, file) in enumerate(config.targets, start=1):
        _say(f"{photo} ({i} of {len(config.targets)}) ...")
        try:
            job.segment(photo, file)
        except _SkipError as error:
            _say(f"{prefix_for('segment')}: error: {photo}: {error}")
            status = 1
    return status


class _Job:
    def __init__(self, config: SegmentConfig) -> None:
        self.config = config

    @cached_property
    def segmenter(self) -> Segmenter:
        """The loaded model."""
        from sam2_amg.library import load_segmenter
        from sam2_amg.modes.load import keep_compiled

        config = self.config
        if config.compile_cache is not None:
            keep_compiled(config.compile_cache)
        for_all = config.parameters.model_copy(update={"points": None})
        own = for_all.config(config.generator, (0, 0)) or config.generator
        return load_segmenter(config.model, own, lambda doing: _say(f"{doing} ..."))

    def segment(self, photo: Path, file: Path | None) -> None:
        """Writes the masks of a photograph to a file, or to standard output for None. Raises _SkipError."""
        config = self.config
        try:
            image = decode_image(photo.read_bytes(), config.limits, config.parameters.stretch)
        except IsADirectoryError as error:
            raise _SkipError(f"is a folder; give the files in it, or use {command_for('batch')}") from error
        except OSError as error:
            raise _SkipError(f"cannot be read ({error.strerror}); give an image file") from error
        except RequestError as error:
            raise _SkipError(error.message) from error
        size = image.shape[0], image.shape[1]
        segmenter, start = self.segmenter, time.monotonic()
        try:
            records = segmenter.find(image, config.parameters)
            answer = render(config.format, records, size, photo.name, config.options, image)
        except (ParameterError, AnswerError) as error:
            raise _SkipError(str(error)) from error
        except Exception as error:
            if not segmenter.is_out_of_memory(error):
                raise
            raise _SkipError("the device has too little memory; lower --points_per_batch, or scale it down") from error
        _write(answer.data, file)
        _say(f"{len(records)} masks in {file or 'standard output'}, {time.monotonic() - start:.1f} s")


def _write(data: bytes, file: Path | None) -> None:
    try:
        if file is not None:
            file.write_bytes(data)
            return
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        if file is None:  # Python flushes it once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _SkipError(f"{file or 'standard output'} cannot be written ({error.strerror})") from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
