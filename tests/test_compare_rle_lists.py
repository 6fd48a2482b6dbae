"""compare, as the program compare_rle_lists.py, its figures against masks compared pixel by pixel."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers import ROOT
from numpy.typing import NDArray
from sam2.utils.amg import mask_to_rle_pytorch
from scipy.optimize import linear_sum_assignment

from sam2_amg.agreement.masks import compare_images, parse_masks
from sam2_amg.cli.main import status_of


def disc(y: float, x: float, radius: float, size: tuple[int, int] = (40, 50)) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def answer(masks: list[NDArray[np.bool_]]) -> dict[str, Any]:
    if not masks:
        return {}
    return {f"mask_{i}": rle for i, rle in enumerate(mask_to_rle_pytorch(torch.from_numpy(np.stack(masks))))}


def random_masks(seed: int, count: int, shift: float = 0.0) -> list[NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    return [disc(random.uniform(0, 40) + shift, random.uniform(0, 50), random.uniform(2, 15)) for _ in range(count)]


def write_list(path: Path, answers: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in answers))
    return path


def run_program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "compare_rle_lists.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What the program does, in this process."""
    command = ["compare_rle_lists.py", *map(str, arguments)]
    out, errors = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(errors):
        status = status_of("compare", command[1:])
    return subprocess.CompletedProcess(command, status, out.getvalue(), errors.getvalue())


def figures_of(tmp_path: Path, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any]:
    out = tmp_path / "figures.json"
    result = compare(write_list(tmp_path / "a", a), write_list(tmp_path / "b", b), "--json", out)
    assert result.returncode == 0, result.stderr
    return json.loads(out.read_text())


def pixel_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = (a | b).sum()
    return (a & b).sum() / union if union else 1.0


def test_a_list_agrees_with_itself(tmp_path: Path) -> None:
    answers = [answer(random_masks(i, i)) for i in range(6)]
    figures = figures_of(tmp_path, answers, answers)
    assert figures["images"] == 6
    assert figures["count_mismatches"] == 0
    assert figures["published_miou"] == figures["matched_miou"] == figures["matched_miou_p5"] == 1.0
    assert figures["published_images"] == 5  # the image without a mask has no pair to publish
    assert set(figures["precision"].values()) == set(figures["recall"].values()) == {1.0}


def test_figures_against_pixels(tmp_path: Path) -> None:
    pairs = [(random_masks(i, 3 + i % 3), random_masks(i, 3 + (i + i % 2) % 3, shift=1.5)) for i in range(12)]
    figures = figures_of(tmp_path, [answer(a) for a, _ in pairs], [answer(b) for _, b in pairs])
    published, scores, matched = [], [], []
    for a, b in pairs:
        iou = np.array([[pixel_iou(x, y) for y in b] for x in a])
        best = iou[linear_sum_assignment(iou, maximize=True)]
        matched += best.tolist()
        scores.append(best.sum() / max(len(a), len(b)))
        if len(a) == len(b):
            ranked = (sorted(masks, key=lambda mask: -mask.sum()) for masks in (a, b))
            published.append(np.mean([pixel_iou(x, y) for x, y in zip(*ranked, strict=True)]))
    counts = [len(a) for a, _ in pairs], [len(b) for _, b in pairs]
    assert 0 < len(published) < 12
    assert figures["published_miou"] == pytest.approx(np.mean(published))
    assert figures["count_mismatches"] == 12 - len(published)
    assert figures["matched_miou"] == pytest.approx(np.mean(scores))
    assert figures["matched_miou_p5"] == pytest.approx(np.percentile(scores, 5))
    for threshold in (0.5, 0.75, 0.9):
        hits = sum(iou >= threshold for iou in matched)
        assert figures["recall"][str(threshold)] == pytest.approx(hits / sum(counts[0]))
        assert figures["precision"][str(threshold)] == pytest.approx(hits / sum(counts[1]))


def test_order_of_masks_does_not_matter_and_missing_ones_count(tmp_path: Path) -> None:
    masks = random_masks(0, 4)
    figures = figures_of(tmp_path, [answer(masks)], [answer(masks[::-1][:3])])
    assert figures["count_mismatches"] == 1
    assert figures["published_miou"] is None
    assert figures["matched_miou"] == pytest.approx(0.75)
    assert figures["recall"]["0.9"] == pytest.approx(0.75)
    assert figures["precision"]["0.9"] == 1.0


def test_one_side_without_masks_scores_zero_and_none_on_both_one(tmp_path: Path) -> None:
    figures = figures_of(tmp_path, [answer(random_masks(0, 2)), {}], [{}, {}])
    assert figures["matched_miou"] == 0.5
    assert figures["precision"]["0.5"] is None
    assert figures["recall"]["0.5"] == 0.0


def test_runs_of_length_zero_are_the_same_mask() -> None:
    def one(counts: list[int]) -> bytes:
        return json.dumps({"mask_0": {"size": [2, 5], "counts": counts}}).encode()

    for split in ([2, 1, 0, 3, 4], [0, 0, 2, 4, 4], [2, 4, 4, 0], [2, 4, 1, 0, 3]):
        agreement = compare_images(parse_masks(one([2, 4, 4])), parse_masks(one(split)))
        assert agreement.matched.tolist() == [1.0]
    full, empty = parse_masks(one([0, 10])), parse_masks(one([10]))
    assert compare_images(full, empty).matched.tolist() == [0.0]
    assert compare_images(empty, empty).matched.tolist() == [1.0]
    assert compare_images(full, parse_masks(one([0, 4, 0, 6]))).matched.tolist() == [1.0]


def test_folders(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side / "below").mkdir(parents=True)
        for i, name in enumerate(("x.json", "below/y.json")):
            (tmp_path / side / name).write_text(json.dumps(answer(random_masks(i, 2))))
    assert compare(tmp_path / "a", tmp_path / "b", "--min_miou", 1).returncode == 0
    (tmp_path / "b" / "x.json").rename(tmp_path / "b" / "z.json")
    result = compare(tmp_path / "a", tmp_path / "b")
    assert result.returncode == 2
    assert "x.json" in result.stderr
    assert "z.json" in result.stderr


def test_min_miou(tmp_path: Path) -> None:
    masks = random_masks(0, 4)
    a, b = write_list(tmp_path / "a", [answer(masks)]), write_list(tmp_path / "b", [answer(masks[:3])])
    assert compare(a, b, "--min_miou", 0.7).returncode == 0
    result = compare(a, b, "--min-miou", 0.8)
    assert result.returncode == 1
    assert "0.750000 is below --min_miou 0.8" in result.stderr
    assert "matched mIoU, all images    0.750000" in result.stdout
    for nonsense in ("nan", "1.5"):
        assert compare(a, b, "--min_miou", nonsense).returncode == 2
    unwritable = compare(a, b, "--json", tmp_path / "nowhere" / "figures.json")
    assert unwritable.returncode == 2
    assert "nowhere/figures.json: No such file or directory" in unwritable.stderr


def test_the_program_ends_with_the_status(tmp_path: Path) -> None:
    masks = random_masks(0, 4)
    a, b = write_list(tmp_path / "a", [answer(masks)]), write_list(tmp_path / "b", [answer(masks[:3])])
    for arguments, status in (((a, a), 0), ((a, b, "--min_miou", 0.8), 1), ((a, tmp_path / "c"), 2)):
        result = run_program(*arguments)
        assert result.returncode == status
        assert (result.stdout, result.stderr) == (compare(*arguments).stdout, compare(*arguments).stderr)
        assert "Traceback" not in result.stderr


GOOD = json.dumps(answer(random_masks(0, 2)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of B is not JSON"),
        ("[]", "line 2 of B is not a JSON object"),
        ('{"error": {"code": "queue_full", "message": ""}}', "line 2 of B is an error of the server"),
        ('{"mask_0": {"counts": [4]}}', "line 2 of B mask_0: size must be [height, width]"),
        ('{"mask_0": {"size": [2, 2], "counts": [3]}}', "line 2 of B mask_0: counts add up to 3, not to 2 x 2"),
        ('{"mask_0": {"size": [2, 2], "counts": [-1, 5]}}', "mask_0: counts must be a list of integers"),
        ('{"mask_0": {"size": [2, 2], "counts": [1.5, 2.5]}}', "mask_0: counts must be a list of integers"),
        ('{"mask_0": {"size": [2, 2], "counts": [[1], 3]}}', "mask_0: counts must be a list of integers"),
        ('{"mask_0": {"size": [2, 2], "counts": []}}', "mask_0: counts must be a list of integers"),
        ('{"mask_0": {"size": [2, 2], "counts": "4"}}', "mask_0: counts must be a list of integers"),
        (f'{{"mask_0": {{"size": [2, 2], "counts": [{2**62 + 4}, {2**62}, {2**62}, {2**62}]}}}}', "is more than 2 x 2"),
        ('{"mask_0": {"size": [70000, 70000], "counts": [4900000000]}}', "over pycocotools' limit of 4294967295"),
        ('{"mask_0": {"size": [2, 2], "counts": [4]}}', "line 2: sizes differ: (40, 50) and (2, 2)"),
        (
            '{"mask_0": {"size": [2, 2], "counts": [4]}, "mask_1": {"size": [1, 4], "counts": [4]}}',
            "line 2 of B has masks of different sizes",
        ),
    ],
)
def test_lines_that_cannot_be_compared(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a").write_text(f"{GOOD}\n{GOOD}\n")
    (tmp_path / "b").write_text(f"{GOOD}\n{line}\n")
    result = compare(tmp_path / "a", tmp_path / "b")
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_lists_of_different_length_missing_and_empty(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text(f"{GOOD}\n{GOOD}\n")
    b.write_text(f"{GOOD}\n")
    assert f"{a} has line 2, but {b} ends before it" in compare(a, b).stderr
    assert f"{tmp_path / 'c'} cannot be read" in compare(a, tmp_path / "c").stderr
    a.write_text("")
    b.write_text("")
    assert "are empty" in compare(a, b).stderr
    assert "must be both files, or both folders" in compare(a, tmp_path).stderr


def test_compressed_lists(tmp_path: Path) -> None:
    plain = write_list(tmp_path / "a", [answer(random_masks(i, 3)) for i in range(3)])
    compressed = tmp_path / "b.jsonl.gz"
    compressed.write_bytes(gzip.compress(plain.read_bytes()))
    assert compare(plain, compressed, "--min_miou", 1).returncode == 0
    whole = compressed.read_bytes()
    broken = {
        "no gzip": plain.read_bytes(),
        "cut short": whole[:-20],
        "damaged": whole[:40] + b"\xff" * 40 + whole[80:],
    }
    for what, data in broken.items():
        compressed.write_bytes(data)
        result = compare(plain, compressed)
        assert result.returncode == 2, what
        assert f"{compressed} cannot be read (" in result.stderr
        assert result.stderr.count("\n") == 1


def numbered(number: int) -> str:
    """An answer that agrees with no other number's."""
    return json.dumps(answer([disc(20, 5 + 6 * number, 3)]))


A1, A2, A3 = (numbered(number) for number in (1, 2, 3))


def write_answers(path: Path, text: str) -> None:
    """Writes `text` with the answers A1 to A3 in the place of their numbers."""
    data = "".join({"1": A1, "2": A2, "3": A3}.get(letter, letter) for letter in text).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("", 0),
        ("1", 1),
        ("1\n", 1),
        ("1\n\n", 1),
        ("1\n\n2\n\n", 2),
        ("1\n\n2\n\n3\n\n", 3),
        ("1\r\n\r\n2\r\n\r\n", 2),
        ("1\n2\n3\n", 3),
        ("1\n2\n3", 3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lists_with_and_without_a_line_after_each_answer(tmp_path: Path, text: str, images: int, suffix: str) -> None:
    """Each agrees with the plain list, whichever of them is the reference."""
    plain, path = tmp_path / "plain", tmp_path / f"list{suffix}"
    plain.write_text("".join(f"{one}\n" for one in (A1, A2, A3)[:images]))
    write_answers(path, text)
    for pair in ((plain, path), (path, plain), (path, path)):
        result = compare(*pair, "--min_miou", 1)
        if images:
            assert (result.returncode, result.stderr) == (0, "")
            assert f"images                      {images}\n" in result.stdout
        else:
            assert result.returncode == 2
            assert "are empty" in result.stderr


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("\n", "line 1"),
        ("\n\n", "line 1, line 2"),
        ("\n1\n", "line 1"),
        ("\n1\n\n", "line 1"),
        ("1\n\n\n", "line 3 (image 2)"),
        ("1\n\n\n\n2\n\n", "line 3 (image 2), line 4 (image 3)"),
        ("\n\n1\n\n\n2\n\n", "line 1, line 2, line 5 (image 4)"),
        ("1\n\n2\n", "line 2"),
        ("1\n\n2", "line 2"),
        ("1\n2\n\n", "line 3"),
        ("1\n \n2\n\n3\n", "line 2, line 4"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_without_an_answer_are_all_named(tmp_path: Path, text: str, places: str, suffix: str) -> None:
    good, path = write_list(tmp_path / "good", [json.loads(A1)]), tmp_path / f"list{suffix}"
    write_answers(path, text)
    for pair in ((good, path), (path, good)):
        result = compare(*pair)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"{path} has no answer at {places}: requests failed; send" in result.stderr
        assert str(good) not in result.stderr
        assert result.stderr.count("\n") == 1


def test_images_without_an_answer_in_both_lists_are_one_message(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text(f"{A1}\n\n\n{A3}\n\n")
    b.write_text(f"{A1}\n{A2}\n\n")
    result = compare(a, b)
    assert result.returncode == 2
    assert f"{a} has no answer at line 3 (image 2); {b} has no answer at line 3: requests failed" in result.stderr


def test_a_line_after_each_answer_does_not_hide_what_is_wrong(tmp_path: Path) -> None:
    """A refused image has an answer, its error; and lists of different lengths stay so."""
    a, b = tmp_path / "a", tmp_path / "b"
    refused = '{"error": {"code": "queue_full", "message": ""}}'
    a.write_text(f"{A1}\n{A2}\n")
    b.write_text(f"{A1}\n\n{refused}\n\n")
    result = compare(a, b)
    assert result.returncode == 2
    assert "line 3 (image 2) of B is an error of the server, not masks" in result.stderr
    b.write_text(f"{A1}\n\n{A2}\n\n{A3}\n\n")
    assert f"{b} has line 5 (image 3), but {a} ends before it" in compare(a, b).stderr
    assert f"{b} has line 5 (image 3), but {a} ends before it" in compare(b, a).stderr
    b.write_text(f"{A2}\n\n{A1}\n\n")
    assert "matched mIoU, all images    0.000000" in compare(a, b).stdout


def test_an_empty_file_of_a_folder_is_an_image_without_an_answer(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        for name in ("x.json", "y.json"):
            (tmp_path / side / name).write_text(A1)
    (tmp_path / "b" / "y.json").write_text("\n")
    result = compare(tmp_path / "a", tmp_path / "b")
    assert result.returncode == 2
    assert f"{tmp_path / 'b'} has no answer at y.json: requests failed" in result.stderr


def test_lists_may_be_pipes() -> None:
    """They are read once."""
    list_ = f"printf '%s\\n' '{A1}' '' '{A2}' ''"
    program = f"{sys.executable} compare_rle_lists.py <({list_}) <({list_}) --min_miou 1"
    result = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
