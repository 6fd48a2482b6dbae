"""Scenes in space: that rays meet solids where they should, and that rooms are drawn true."""

import math

import pytest
import torch

from training.scenes.randomness import Draw
from training.scenes.rooms import _find_skin, draw_room, paint_room
from training.scenes.solids import BALL, BOX, CYLINDER, FACES, Solids, distances, surface
from training.scenes.textures import draw_textures

SIZE = 64
SKY, FLOOR, WALL, SIDE_WALL, FIRST_SOLID = range(5)
INF = math.inf


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Pictures are so small that threads would mostly wait for each other, long where a machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def solid(kind, centre=(0.0, 0.0, 0.0), half=(1.0, 1.0, 1.0), yaw=0.0):
    centre, half = (torch.tensor(numbers).view(1, 1, 3, 1, 1) for numbers in (centre, half))
    return Solids(centre, half, torch.full((1, 1, 1, 1, 1), yaw), torch.full((1, 1, 1, 1, 1), kind))


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(1, 1, 3, 1, 1)


def pixels(points):
    """[n, 3] -> [1, 1, 3, 1, n]"""
    return torch.as_tensor(points, dtype=torch.float32).mT[None, None, :, None]


def into_frame(solids, vectors):
    """Turns [1, K, 3, S, S] as solids are turned, written by another way than the code: with matrices."""
    yaw = solids.yaw.flatten()
    zero = torch.zeros_like(yaw)
    rows = [yaw.cos(), zero, yaw.sin(), zero, zero + 1, zero, -yaw.sin(), zero, yaw.cos()]
    return torch.einsum("kij,bkjyx->bkiyx", torch.stack(rows, 1).view(-1, 3, 3), vectors)


def implicit(solids, points):
    """Below 1 inside, 1 on the surface, above 1 outside. [1, K, S, S]"""
    local = into_frame(solids, points - solids.centre) / solids.half
    tube = torch.hypot(local[:, :, 0], local[:, :, 2])
    values = [local.abs().amax(2), local.norm(dim=2), torch.maximum(tube, local[:, :, 1].abs())]
    return torch.stack(values).gather(0, solids.kind[None, :, :, 0].expand(1, *tube.shape))[0]


def random_solids_and_rays(solids=30, rays=18):
    """In double precision; every ray begins outside and passes near the middle, where the solids are."""
    draw = Draw(5, "cpu")
    shape = (1, solids, 1, 1, 1)
    centre = draw.uniform(1, solids, 3, 1, 1, low=-1, high=1)
    half = draw.log_uniform(1, solids, 3, 1, 1, low=0.4, high=1.6)
    kind = torch.arange(solids).view(shape) % 3
    yaw = draw.uniform(*shape, low=-3, high=3)
    origin = 8 * torch.nn.functional.normalize(draw.normal(1, 1, 3, rays, rays), dim=2)
    way = (draw.uniform(1, 1, 3, rays, rays, low=-1.5, high=1.5) - origin) * draw.uniform(1, 1, 1, rays, rays, low=0.1)
    return Solids(centre.double(), half.double(), yaw.double(), kind), origin.double(), way.double()


HITS = {
    "a ball": (solid(BALL, (0, 0, 5)), (0, 0, 0), (0, 0, 1), 4),
    "a ball beside its middle": (solid(BALL, (0.6, 0, 5)), (0, 0, 0), (0, 0, 1), 4.2),
    "in steps of two": (solid(BALL, (0, 0, 5)), (0, 0, 0), (0, 0, 2), 2),
    "a scaled ball": (solid(BALL, (0, 0, 5), (1, 1, 3)), (0, 0, 0), (0, 0, 1), 2),
    "a box": (solid(BOX, (0, 0, 5)), (0.5, -0.5, 0), (0, 0, 1), 4),
    "a scaled box": (solid(BOX, (0, 0, 5), (2, 3, 0.5)), (1.9, 2.9, 0), (0, 0, 1), 4.5),
    "a box aslant": (solid(BOX, (0, 0, 5)), (-4, 0, 0), (1, 0, 1), 4),
    "an edge of a turned box": (solid(BOX, (0, 0, 5), yaw=math.pi / 4), (0, 0, 0), (0, 0, 1), 5 - 2**0.5),
    "a quarter turn": (solid(BOX, (0, 0, 5), (3, 1, 1), yaw=math.pi / 2), (0, 0, 0), (0, 0, 1), 2),
    "a cylinder": (solid(CYLINDER, (0, 0, 5), (2, 1, 2)), (0, 0.9, 0), (0, 0, 1), 3),
    "a cylinder beside its middle": (solid(CYLINDER, (0.6, 0, 5)), (0, 0, 0), (0, 0, 1), 4.2),
    "a cylinder's end": (solid(CYLINDER, (0, 0, 5), (1, 2, 1)), (0.5, 6, 5.5), (0, -1, 0), 4),
    "a cylinder's end from below": (solid(CYLINDER, (0, 0, 5)), (0, -4, 3), (0, 2, 1), 1.5),
}
MISSES = {
    "past a ball": (solid(BALL, (0, 0, 5)), (1.01, 0, 0), (0, 0, 1)),
    "past the corner of a ball's box": (solid(BALL, (0, 0, 5)), (0.8, 0.8, 0), (0, 0, 1)),
    "past a box": (solid(BOX, (0, 0, 5)), (1.01, 0, 0), (0, 0, 1)),
    "past a turned box": (solid(BOX, (0, 0, 5), (3, 1, 1), yaw=math.pi / 2), (1.5, 0, 0), (0, 0, 1)),
    "over a cylinder": (solid(CYLINDER, (0, 0, 5)), (0, 1.01, 0), (0, 0, 1)),
    "past a cylinder's end": (solid(CYLINDER, (0, 0, 5)), (0.8, 6, 5.8), (0, -1, 0)),
    "away from a ball": (solid(BALL, (0, 0, 5)), (0, 0, 0), (0, 0, -1)),
    "away from a box": (solid(BOX, (0, 0, 5)), (0, 0, 0), (0, 0, -1)),
    "out of a ball": (solid(BALL, (0, 0, 5)), (0, 0, 5), (0, 0, 1)),
    "out of a box": (solid(BOX, (0, 0, 5)), (0.5, 0, 5), (0, 0, 1)),
    "out of a cylinder": (solid(CYLINDER, (0, 0, 5)), (0, 0.5, 5), (0, 1, 0)),
}


@pytest.mark.parametrize(("hit", "origin", "way", "distance"), HITS.values(), ids=HITS)
def test_a_ray_meets_a_solid_as_far_away_as_it_is(hit, origin, way, distance):
    assert distances(hit, vector(*origin), vector(*way)).item() == pytest.approx(distance, rel=1e-5)


@pytest.mark.parametrize(("missed", "origin", "way"), MISSES.values(), ids=MISSES)
def test_a_ray_past_away_from_or_out_of_a_solid_meets_nothing(missed, origin, way):
    assert distances(missed, vector(*origin), vector(*way)).item() == INF


def test_a_ray_from_a_surface_does_not_meet_that_surface():
    for kind in (BOX, BALL, CYLINDER):
        assert distances(solid(kind, (0, 0, 5)), vector(0, 0, 4), vector(0, 0, -1)).item() == INF
        assert distances(solid(kind, (0, 0, 5)), vector(0, 0, 4), vector(0, 0, 1)).item() == INF


def test_rays_end_on_surfaces_and_meet_nothing_before():
    solids, origin, way = random_solids_and_rays()
    far = distances(solids, origin, way)
    met = far.isfinite()
    for kind in (BOX, BALL, CYLINDER):
        assert 0.1 < met[:, solids.kind.flatten() == kind].double().mean() < 0.7
    end = torch.where(met, far, 0.0)[:, :, None]
    at_the_end = implicit(solids, origin + end * way)
    torch.testing.assert_close(at_the_end[met], torch.ones_like(at_the_end[met]), rtol=0, atol=1e-9)
    # those that meet nothing are followed until they are far behind every solid
    length = torch.where(met[:, :, None], end, 20 / way.norm(dim=2, keepdim=True))
    for share in torch.linspace(0, 0.999, 80).tolist():
        assert implicit(solids, origin + share * length * way).min() > 1 - 1e-9
    assert implicit(solids, origin + (length + 1e-3) * way)[met].lt(1).double().mean() > 0.9  # inside, or grazed


def test_each_pixel_has_the_solid_that_it_shows():
    solids, _, _ = random_solids_and_rays()
    index = torch.tensor([[[3, 0], [29, 3]]])
    for all_of_them, shown in zip(solids, solids.at(index), strict=True):
        assert shown.shape == (1, 1, all_of_them.shape[2], 2, 2)
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            assert torch.equal(shown[0, 0, :, y, x], all_of_them[0, index[0, y, x], :, 0, 0])


def test_normals_are_gradients():
    solids, origin, way = random_solids_and_rays()
    far = distances(solids, origin, way)
    nearest = far.min(1, keepdim=True)
    points = origin + torch.where(nearest.values.isfinite(), nearest.values, 0.0)[:, :, None] * way
    shown = solids.at(nearest.indices[:, 0])
    seen = surface(shown, points)
    steps = 1e-6 * torch.eye(3, dtype=torch.float64).view(3, 1, 1, 3, 1, 1)
    # a solid a pixel, as many solids in pictures of one pixel
    alone = Solids(*(field.flatten(3).permute(0, 3, 2, 1).unsqueeze(-1) for field in shown))
    points = points.flatten(3).permute(0, 3, 2, 1).unsqueeze(-1)
    up_and_down = [implicit(alone, points + step) - implicit(alone, points - step) for step in steps]
    gradients = torch.nn.functional.normalize(torch.stack(up_and_down, 2)[0, :, :, 0, 0], dim=1)  # [pixels, 3]
    normals = seen.normal.flatten(2)[0].mT
    local = (into_frame(alone, points - alone.centre) / alone.half)[0, :, :, 0, 0]
    rim = (alone.kind.flatten() == CYLINDER) & (local[:, 1].abs() > 0.998) & (local[:, ::2].norm(dim=1) > 0.998)
    for kind in (BOX, BALL, CYLINDER):
        compared = nearest.values.isfinite().flatten() & (alone.kind.flatten() == kind) & ~rim
        assert compared.sum() > 20
        torch.testing.assert_close(normals[compared], gradients[compared], rtol=0, atol=1e-5)


def test_a_box_has_six_sides():
    sides = torch.cat([torch.eye(3), -torch.eye(3)])
    half = torch.tensor([1.0, 2.0, 3.0])
    middle, elsewhere = (sides + shift * (1 - sides.abs()) for shift in (0.0, 0.7))
    box = solid(BOX, (0, 0, 5), half.tolist())
    seen, again = (surface(box, pixels(place * half) + vector(0, 0, 5)) for place in (middle, elsewhere))
    torch.testing.assert_close(seen.normal[0, :, 0].mT, sides)
    assert sorted(seen.face.flatten().tolist()) == list(range(FACES))
    assert torch.equal(seen.face, again.face)


def test_a_turned_box_faces_where_it_is_turned():
    eighth = 0.5**0.5
    box = solid(BOX, yaw=math.pi / 4)
    seen = surface(box, pixels([[eighth, 0.1, -eighth], [-eighth, 0.1, -eighth]]))
    torch.testing.assert_close(seen.normal[0, :, 0].mT, torch.tensor([[eighth, 0, -eighth], [-eighth, 0, -eighth]]))
    assert seen.face.unique().numel() == 2


def test_places_on_a_side_of_a_box_are_told_from_minus_one_to_one():
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    for axis in range(3):
        points = torch.ones(4, 3)
        points[:, [i for i in range(3) if i != axis]] = 0.999 * corners
        seen = surface(solid(BOX, half=(1, 2, 3)), pixels(points * torch.tensor([1.0, 2, 3])))
        places = torch.stack([seen.u.flatten(), seen.v.flatten()], 1)
        torch.testing.assert_close(places.abs(), torch.full((4, 2), 0.999))
        assert len(places.sign().unique(dim=0)) == 4


def test_a_stretched_and_turned_ball_faces_away_from_its_middle():
    # x² / 4 + z² = 1 at x = z, of a ball turned by a quarter: its long axis is z
    place = 2 / 5**0.5
    seen = surface(solid(BALL, half=(2, 1, 1), yaw=math.pi / 2), pixels([[place, 0, place], [0, 1, 0]]))
    expected = torch.tensor([[4 / 17**0.5, 0, 1 / 17**0.5], [0, 1, 0]])
    torch.testing.assert_close(seen.normal[0, :, 0].mT, expected)


def test_the_ends_of_a_cylinder_are_no_part_of_its_side():
    place = 0.5**0.5
    points = torch.tensor([[0.3, 2, 0.2], [0.3, -2, -0.9], [place, 1.9, place], [0, -1.9, -1]])
    seen = surface(solid(CYLINDER, half=(1, 2, 1)), pixels(points))
    top, bottom, right, front = seen.face.flatten().tolist()
    assert top == bottom != right == front
    expected = torch.tensor([[0, 1, 0], [0, -1, 0], [place, 0, place], [0, 0, -1]])
    torch.testing.assert_close(seen.normal[0, :, 0].mT, expected)


def draw(seed, batch=4):
    one = Draw(seed, "cpu")
    textures = draw_textures(one, 3, SIZE)
    return paint_room(draw_room(one, batch, SIZE, 3), textures)


@pytest.fixture(scope="module")
def drawn():
    return draw(7, batch=8)


def test_rooms_of_a_seed_are_the_same_and_others_differ(drawn):
    again, other = draw(7, batch=8), draw(8, batch=8)
    assert torch.equal(drawn.images, again.images)
    assert torch.equal(drawn.levels, again.levels)
    assert not torch.equal(drawn.images, other.images)
    assert not torch.equal(drawn.levels, other.levels)


def test_images_of_rooms_are_in_range_and_show_something(drawn):
    assert drawn.images.shape == (8, 3, SIZE, SIZE)
    assert drawn.images.isfinite().all()
    assert drawn.images.min() >= 0
    assert drawn.images.max() <= 1
    assert drawn.images.flatten(1).std(1).min() > 0.02


def test_panes_lie_in_one_face_and_faces_in_one_thing(drawn):
    for levels in drawn.levels:
        for fine, coarse in ((levels[0], levels[1]), (levels[1], levels[2])):
            for label in fine.unique():
                assert len(coarse[fine == label].unique()) == 1
    panes, faces, things = (sum(len(level.unique()) for level in drawn.levels[:, i]) for i in range(3))
    assert panes > faces > things > 3 * len(drawn.levels)


def by_hand(*things, lamps=((0, 100, 4),) * 3, strength=1.0, height=2.5, pitch=0.5, walls=(INF, INF)):
    """A grey room without textures in which everything is where it is said to be; ambient light is 0.4."""
    room = draw_room(Draw(0, "cpu"), 1, SIZE, 1)
    buried = solid(BALL, (0.0, -100.0, 5.0))
    things = [*things, *[buried] * (room.solids.centre.shape[1] - len(things))]
    materials = torch.zeros_like(room.materials)
    materials[..., :3] = 0.5
    materials[..., 3:6] = 0.3  # difference of panes
    materials[..., 7] = 100  # zoom
    wall_normals = torch.tensor([[0.0, 0, 1], [1.0, 0, 0]])
    return room._replace(
        solids=Solids(*(torch.cat(fields, 1) for fields in zip(*things, strict=True))),
        camera=vector(0, height, 0),
        pitch=torch.full((1, 1, 1, 1), pitch),
        focal=torch.ones(1, 1, 1, 1),
        walls=torch.cat([wall_normals, torch.tensor(walls)[:, None]], 1)[None],
        height=torch.full((1, 1, 1, 1), 4.0),
        lamps=torch.tensor(lamps, dtype=torch.float32).view(1, 3, 3, 1, 1),
        light=torch.tensor([0.4, strength, 0.0]).view(1, 3, 1, 1, 1),
        materials=materials,
        paned=torch.zeros_like(room.paned),
        seams=torch.tensor([1.0, 1.0, 0.0]).expand_as(room.seams),
    )


def paint_plain(room):
    """Image [S, S] and levels [3, S, S]."""
    images, levels = paint_room(room, torch.zeros(1, SIZE, SIZE))
    return images[0, 0], levels[0]


def pixel_of(room, x, y, z):
    """Row and column in which a point is seen."""
    pitch, down = room.pitch.item(), y - room.camera[0, 0, 1].item()
    ahead, up = z * math.cos(pitch) - down * math.sin(pitch), z * math.sin(pitch) + down * math.cos(pitch)
    return int((1 - up / ahead) / 2 * SIZE), int((1 + x / ahead) / 2 * SIZE)


def test_the_floor_is_dark_in_a_shadow_and_bright_beside_it():
    ball = solid(BALL, (0.0, 0.5, 4.0), (0.5, 0.5, 0.5))
    lamps = ((-4, 4, 4),) * 3  # the shadow is between x = -0.2 and 1.5
    room = by_hand(ball, lamps=lamps)
    image, levels = paint_plain(room)
    dark, bright = pixel_of(room, 0.9, 0, 4), pixel_of(room, -0.9, 0, 4)
    assert levels[2][dark] == levels[2][bright] == FLOOR
    assert image[dark].item() == pytest.approx(0.5 * 0.4)  # ambient light alone
    facing = 4 / math.hypot(3.1, 4)
    assert image[bright].item() == pytest.approx(0.5 * (0.4 + 1.2 * 0.6 * facing), abs=0.01)
    half, _ = paint_plain(by_hand(ball, lamps=lamps, strength=0.5))
    empty, _ = paint_plain(by_hand(lamps=lamps, strength=0.5))
    assert half[dark] - 0.2 == pytest.approx((empty[dark] - 0.2) / 2)
    assert half[bright] == empty[bright] == image[bright]


def test_lamps_apart_make_the_edge_of_a_shadow_soft():
    ball = solid(BALL, (0.0, 0.5, 4.0), (0.5, 0.5, 0.5))
    room = by_hand(ball, lamps=((-4, 4, 4), (-4, 4, 4), (-4, 7, 4)))  # the third's shadow ends at x = 0.8
    image, _ = paint_plain(room)
    empty, _ = paint_plain(room._replace(solids=by_hand().solids))
    full, part, none = (pixel_of(room, x, 0, 4) for x in (0.7, 1.2, 2))
    assert image[full].item() == pytest.approx(0.2)
    assert 0.2 < image[part] < empty[part] - 0.1
    assert image[none] == empty[none]


def test_the_top_of_a_box_under_a_lamp_is_brighter_than_its_front():
    image, (_, faces, things) = paint_plain(by_hand(solid(BOX, (0.0, 0.7, 4.0), (0.8, 0.7, 0.8))))
    box = things == FIRST_SOLID
    front, top = sorted(image[faces == face].mean().item() for face in faces[box].unique())
    assert front == pytest.approx(0.5 * 0.4, abs=0.01)
    assert top == pytest.approx(0.5 * (0.4 + 1.2 * 0.6), abs=0.01)
    assert len(faces[~box].unique()) == 2  # floor and sky


def test_what_is_near_hides_what_is_far_and_looks_larger():
    far, near = solid(BALL, (0.0, 1.0, 8.0)), solid(BALL, (0.6, 1.0, 4.0))
    _, (_, _, things) = paint_plain(by_hand(far, near, height=1.0, pitch=0.0))
    sizes = [(things == FIRST_SOLID + i).sum().item() for i in range(2)]
    _, (_, _, alone) = paint_plain(by_hand(far, height=1.0, pitch=0.0))
    assert 0 < sizes[0] < (alone == FIRST_SOLID).sum() < sizes[1] / 3
    assert (alone == FIRST_SOLID)[things == FIRST_SOLID].all()


def test_walls_stand_between_floor_and_sky():
    _, (_, _, outdoors) = paint_plain(by_hand(height=2.0, pitch=0.0))
    assert outdoors[:32].eq(SKY).all()
    assert outdoors[35:].eq(FLOOR).all()  # below the horizon, where the floor is far, is haze
    room = by_hand(height=2.0, pitch=0.0, walls=(8.0, 3.0))
    _, (_, _, indoors) = paint_plain(room)
    assert indoors[pixel_of(room, 0, 3.8, 8)] == indoors[pixel_of(room, -4, 0.2, 8)] == WALL
    assert indoors[pixel_of(room, 3, 3.8, 6)] == indoors[pixel_of(room, 3, 0.2, 6)] == SIDE_WALL
    assert indoors[pixel_of(room, 0, 4.4, 8)] == indoors[pixel_of(room, 3, 4.4, 6)] == SKY
    assert indoors[pixel_of(room, 0, -0.4, 8)] == indoors[pixel_of(room, 2.5, 0, 6)] == FLOOR


def test_a_wall_is_lit_from_its_own_side_alone():
    for depth, direct in ((0, 1.2 * 0.6), (20, 0)):
        room = by_hand(pitch=0.0, walls=(8.0, INF), lamps=((0, 2.5, depth),) * 3)
        image, levels = paint_plain(room)
        ahead = pixel_of(room, 0, 2.5, 8)
        assert levels[2][ahead] == WALL
        assert image[ahead].item() == pytest.approx(0.5 * (0.4 + direct), abs=0.01)


def test_a_floor_of_three_by_three_panes_has_ten_regions():
    room = by_hand(height=6.0, pitch=0.9)
    panes = torch.zeros_like(room.panes)
    panes[..., :2] = 3
    image, (regions, faces, things) = paint_plain(room._replace(panes=panes, paned=torch.ones_like(room.paned)))
    floor = things == FLOOR
    labels = regions[floor].unique()
    assert len(labels) == 10
    assert len(faces[floor].unique()) == 1
    body, *cells = (image[regions == label].mean().item() for label in labels)
    assert all(abs(cell - body) > 0.1 for cell in cells)


def test_seams_darken_a_floor_every_metre_and_are_no_outline():
    plain = by_hand(height=2.0, pitch=1.2)
    image, levels = paint_plain(plain)
    tiled, same = paint_plain(plain._replace(seams=torch.tensor([1.0, 1.0, 0.4]).expand_as(plain.seams)))
    assert torch.equal(levels, same)
    assert (tiled <= image).all()
    dark = tiled < image
    assert 0.03 < dark.float().mean() < 0.3
    for x, z, seam in ((0.5, 0.8, True), (-0.5, 0.7, True), (1.0, 0.5, True), (0.0, 0.5, True), (0.0, 0.8, False)):
        row, column = pixel_of(plain, x, 0, z)
        assert dark[row - 1 : row + 2, column - 1 : column + 2].any() == seam
    lost = (1 - tiled / image)[dark]
    assert 0.05 < lost.min() < lost.max() < 0.25  # pixels are wider than the seam, and so lose less than 0.4


def test_zero_is_nearest_around_what_is_round():
    for kind in (BALL, CYLINDER):
        around = pixels([[0, 0, 4], [1, 0, 5], [-1, 0, 5]])
        seen = surface(solid(kind, (0, 0, 5)).at(torch.zeros(1, 1, 3, dtype=torch.long)), around)
        torch.testing.assert_close(seen.u[0, 0], torch.tensor([0.0, 1.0, -1.0]))


def test_the_floor_is_divided_along_the_wall():
    room = draw_room(Draw(4, "cpu"), 6, SIZE, 3)
    points = Draw(5, "cpu").normal(6, 1, 3, 8, 8)
    skin = _find_skin(room, torch.full((6, 8, 8), FLOOR), points)
    away = (points[:, 0] * room.walls[:, 0, :3, None, None]).sum(1)  # from the camera's foot towards the wall
    torch.testing.assert_close(skin.v * skin.metres + 4, away, rtol=0, atol=1e-5)
