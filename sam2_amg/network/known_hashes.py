"""SHA-256 of the checkpoints that Meta publishes, each from at least two public sources that agree.

- micro-sam (github.com/computational-cell-analytics/micro-sam, micro_sam/v2/util.py at 05c57cc) gives all four beside
  their addresses at dl.fbaipublicfiles.com, and its downloads are checked against them.
- The registry SAM2_VARIANTS of a project called fruit_pipeline gives all four beside the same addresses, for the same
  purpose.
- QGIS_AI-Segmentation (github.com/TerraLabAI/QGIS_AI-Segmentation, src/core/model_config.py at 0b29a5f) gives that of
  base_plus.

A search of public repositories for each hash finds ten files or more that name it.
"""

from __future__ import annotations

OFFICIAL_SHA256 = {
    "sam2.1_hiera_tiny.pt": "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    "sam2.1_hiera_small.pt": "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    "sam2.1_hiera_base_plus.pt": "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    "sam2.1_hiera_large.pt": "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
}
