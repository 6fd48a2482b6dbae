"""The command line of `serve` and server.py."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields

from sam2_amg.cli.arguments import (
    Parser,
    add_batch_size,
    add_device,
    add_log_format,
    add_model,
    add_replicas,
    device_of,
    model_of,
    path_of,
    replicas_of,
)
from sam2_amg.cli.generator_flags import GENERATOR_FLAGS, add_flags, add_modes, mode_of
from sam2_amg.config import (
    MOST_SLOTS,
    GeneratorConfig,
    Limits,
    ModelConfig,
    ServerConfig,
    require_batch_size,
    require_port,
)
from sam2_amg.pipeline.host_memory import use_huge_pages, use_one_heap
from sam2_amg.process.program import command_for, prefix_for

_DESCRIPTION = "Serve SAM 2.1's automatic mask generator. POST an image to /upload (PNG) or /upload_rle (JSON)."
_EPILOG = """\
examples:
  {serve}                                    the bundled demo model
  {serve} checkpoints large                  SAM 2.1 large, downloaded into checkpoints/ if missing
  {serve} checkpoints tiny --baseline        sam2's own generator, the reference for every other mode

Flags also take hyphens (--points-per-side).
"""

# name, type, help; defaults come from the dataclasses
_LIMIT_FLAGS = (
    ("max_pixels", int, "largest image, in pixels"),
    ("max_body_mib", int, "largest request body, in MiB"),
    ("queue_size", int, "most requests in the server at a time; further ones get 503 and Retry-After"),
    ("request_timeout", float, "seconds until an unanswered request gets 504"),
    ("receive_timeout", float, "seconds in which a request must arrive; a slower one gets 408"),
    ("send_timeout", float, "seconds in which a client must read its answer; a slower one is cut off"),
    ("max_held_mib", int, "most MiB of bodies and unread answers of all requests; further ones get 503"),
    ("decode_timeout", float, "seconds until an image that is not decoded gets 504, or 503 if it still waits"),
    ("max_decoded_mib", int, "most MiB of decoded pixels and of decoders' working memory, of all requests"),
    ("decoders", int, "processes that decode images (default: one a core, at most 4)"),
    ("max_points_per_side", int, "most points_per_side of a request (default: 64, or --points_per_side if more)"),
    ("max_crop_n_layers", int, "most crop_n_layers of a request (default: 2, or --crop_n_layers if more)"),
    ("max_batch_images", int, "most images of a request to /batch"),
    ("stuck_timeout", float, "seconds on one image after which the server ends, for a supervisor to start it again"),
    ("drain_delay", float, "seconds after SIGTERM in which requests are still accepted, and /readyz says 503"),
    ("drain_timeout", float, "seconds after that in which accepted requests are answered; the rest get 503"),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the server until a signal drains it; returns the exit status. Raises StartupError."""
    use_one_heap()
    use_huge_pages()
    config = parse(arguments)
    from sam2_amg.server.startup import serve  # imports torch, which takes seconds; --help and flag errors do not wait

    if config.replicas is None:
        serve(config)
    else:
        from sam2_amg.replicas.backend import ReplicaBackend

        serve(config, ReplicaBackend(config, config.replicas))
    return 0


def build_parser() -> Parser:
    """The parser of this command line."""
    parser = Parser(prefix_for("serve"), _DESCRIPTION, _EPILOG.format(serve=command_for("serve")))
    add_model(parser)
    add_modes(parser)
    together = parser.add_argument_group("many requests")
    add_batch_size(together)
    add_replicas(together)
    place = parser.add_argument_group("address and device")
    place.add_argument("--host", default=ServerConfig.host, help="address to listen on (default %(default)s)")
    text = "port to listen on (default %(default)s); 0 takes a free one"
    place.add_argument("--port", type=int, default=ServerConfig.port, help=text)
    add_device(place)
    access = parser.add_argument_group("access")
    text = "a file with a key; requests but for the page, /healthz and /readyz then need Authorization: Bearer KEY"
    access.add_argument("--api_key_file", type=path_of, metavar="FILE", help=text)
    text = 'the origin (https://example.org) whose pages may ask this server; "*" for all'
    access.add_argument("--cors_origin", type=_origin, metavar="ORIGIN", help=text)
    add_log_format(parser)
    add_flags(parser.add_argument_group("generator"), GENERATOR_FLAGS, GeneratorConfig())
    add_flags(parser.add_argument_group("limits"), _LIMIT_FLAGS, Limits())
    return parser


def _origin(text: str) -> str:
    """Raises argparse.ArgumentTypeError for what no browser sends as its page's origin."""
    if text not in ("*", "null") and re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no origin like https://example.org (no slash at its end)")
    return text


def parse(arguments: Sequence[str]) -> ServerConfig:
    """Command line -> configuration. Raises StartupError; exits for --help."""
    args = build_parser().parse(arguments)
    mode = mode_of(args)
    directory, kind = model_of(args)
    given = {key: value for key, value in vars(args).items() if value is not None}
    require_batch_size(args.batch_size)
    require_port(args.port)
    replicas = replicas_of(args)
    if replicas is not None and args.queue_size is None:
        given["queue_size"] = min(MOST_SLOTS, Limits.queue_size * replicas.most)
    generator, limits = GeneratorConfig(**_only(GeneratorConfig, given)), Limits(**_only(Limits, given))
    device = device_of(args.device, replicas)  # the last check, because it imports torch and takes seconds
    return ServerConfig(
        model=ModelConfig(directory, kind.name, mode, device, args.load_exported, args.batch_size),
        generator=generator,
        limits=limits,
        host=args.host,
        port=args.port,
        compile_cache=args.compile_cache,
        api_key_file=args.api_key_file,
        cors_origin=args.cors_origin,
        log_format=args.log_format,
        replicas=replicas,
    )


def _only(kind: type, values: dict[str, object]) -> dict:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
