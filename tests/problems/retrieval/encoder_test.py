"""Features do not depend on how the items were batched, padded, sorted or spread over devices."""

import functools

import jax
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import routing, zero_shot
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP
from lpi_jax.models.tokenizer import Tokenizer, trim
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.retrieval.adapters import Group
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.types import Adapter

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PICTURES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)
CAPTIONS = [  # with four placeholders and the two ends, up to 16 tokens and up to 24
    "a red circle",
    "a small blue square left of a big green star above a small blue square",
    "one",
    "a striped yellow cross above a dotted purple ring",
    "a red circle",
    "a big orange triangle below a small green heart left of a small red ring",
    "two rings",
]
EXACT = {"rtol": 0, "atol": 1e-6}
PLAIN = zero_shot.build(zero_shot.Options(), {}, routing.Options())


def under(encoder, table, chosen=None):
    """Items of one batch under prompts [A, L, P, D]; None: without."""
    return None if table is None else Group(np.zeros(0, int), encoder.frozen, table, chosen)


@pytest.fixture(scope="module")
def backbone(tiny_clip):
    """A small CLIP: model, parameters, ids of CAPTIONS behind four placeholders."""
    config, params = weights.load(tiny_clip)
    ids, _ = Tokenizer.load(tiny_clip).encode(CAPTIONS, 4, config.context_length)
    return CLIP(config), params, ids


@pytest.fixture(scope="module")
def prompts(backbone):
    """[2, 4, D] for vision and for text."""
    config, rng = backbone[0].config, np.random.default_rng(1)
    return tuple(rng.normal(size=(2, 4, tower.width)).astype(np.float32) for tower in (config.vision, config.text))


@pytest.fixture(scope="module")
def encoders(backbone):
    """batch size -> an encoder; each is compiled once."""
    made = {}

    def encoder(batch):
        if batch not in made:
            mesh = meshes.make_mesh(1)
            frozen = meshes.put_replicated(backbone[1], mesh)
            made[batch] = Encoder(Towers(backbone[0], MEAN, STD), frozen, PLAIN, mesh, batch)
        return made[batch]

    return encoder


@pytest.fixture(scope="module")
def one_by_one(backbone, prompts):
    """(method, prompted) -> features as the model gives them for one item at a time; computed once."""
    model, params, ids = backbone
    pixels = ((PICTURES / 255 - np.float64(MEAN)) / np.float64(STD)).astype(np.float32)
    inputs = {"encode_image": (pixels, prompts[0]), "encode_text": (ids, prompts[1])}

    @functools.cache
    def features(method, prompted):
        items, own = inputs[method]
        own = own if prompted else None
        encode = jax.jit(lambda item: model.apply({"params": params}, item, own, method=method))
        return np.concatenate([encode(item[None]) for item in items])

    return features


@pytest.mark.parametrize(("batch", "prompted"), [(4, False), (4, True), (16, True)])
def test_pictures_are_encoded_as_if_one_by_one(encoders, backbone, prompts, one_by_one, batch, prompted):
    """10 pictures in batches of 4 (two rows of padding) and 16 (six of them)."""
    own = prompts[0][None] if prompted else None
    encoder = encoders(batch)
    found = encoder.images(PICTURES.__getitem__, range(10), under(encoder, own))
    assert found.shape == (10, backbone[0].config.embed_dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_by_one("encode_image", prompted), **EXACT)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("batch", "prompted"), [(4, False), (4, True), (16, True)])
def test_captions_are_encoded_as_if_one_by_one_and_stay_in_their_order(
    encoders, backbone, prompts, one_by_one, batch, prompted
):
    own = prompts[1][None] if prompted else None
    encoder = encoders(batch)
    found = encoder.texts(backbone[2], under(encoder, own))
    assert found.shape == (len(CAPTIONS), backbone[0].config.embed_dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_by_one("encode_text", prompted), **EXACT)
    assert {trim(row[None]).shape[1] for row in backbone[2]} == {16, 24}
    np.testing.assert_allclose(found[0], found[4], **EXACT)  # the same caption twice
    assert len(np.unique(found.round(4), axis=0)) == len(CAPTIONS) - 1


def test_items_of_one_batch_may_have_prompts_of_their_own(encoders, backbone, prompts, one_by_one):
    """A table of three: zeros, these prompts, and others; every item gets what it would get alone."""
    encoder, chosen = encoders(16), np.array([1, 0, 2, 1, 1, 2, 0, 1, 2, 1])
    calls = (
        (0, lambda *own: encoder.images(PICTURES.__getitem__, range(10), under(encoder, *own))),
        (1, lambda *own: encoder.texts(backbone[2], under(encoder, *own))),
    )
    for side, encode in calls:
        table, count = np.stack([0 * prompts[side], prompts[side], -prompts[side]]), (10, len(CAPTIONS))[side]
        found = encode(table, chosen[:count])
        apart = [encode(own[None]) for own in table]
        np.testing.assert_allclose(found, np.stack(apart)[chosen[:count], np.arange(count)], **EXACT)
        expected = one_by_one(("encode_image", "encode_text")[side], True)
        mine = chosen[:count] == 1
        np.testing.assert_allclose(found[mine], expected[mine], **EXACT)
        assert np.abs(apart[0] - apart[2]).max() > 1e-2  # the table's rows differ in what they do


def test_what_routing_looks_at_is_the_features_themselves_or_what_the_last_block_makes(encoders, backbone):
    model, params, ids = backbone
    joint, mesh = encoders(4), meshes.make_mesh(1)
    towers = Towers(model, MEAN, STD)
    frozen = meshes.put_replicated(params, mesh)
    tower = Encoder(towers, frozen, PLAIN, mesh, 4, looks_at="tower")
    for told, looked, described in (
        (
            joint.plain_images(PICTURES.__getitem__, range(5)),
            tower.plain_images(PICTURES.__getitem__, range(5)),
            jax.jit(towers.describe_image)(params, PICTURES[:5]),
        ),
        (joint.plain_texts(ids), tower.plain_texts(ids), jax.jit(towers.describe_text)(params, ids)),
    ):
        np.testing.assert_array_equal(told.asking, told.features)
        for found, expected in zip(looked, described, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(looked.features, told.features, rtol=0, atol=1e-6)
    assert tower.plain_images(PICTURES.__getitem__, []).asking.shape == (0, 2 * model.config.vision.width)
    assert tower.plain_texts(ids[:0]).asking.shape == (0, 2 * model.config.text.width)


@pytest.mark.parametrize(
    ("batch", "count", "sizes"),
    [(128, 3, [16]), (128, 17, [32]), (128, 128 + 70, [128, 128]), (24, 20, [24]), (4, 5, [4, 4])],
)
def test_the_last_batch_is_filled_up_to_few_sizes_only(encoders, monkeypatch, batch, count, sizes):
    encoder, seen = encoders(batch), []
    side = encoder._image

    def noted(params, rows):
        seen.append(len(rows))
        return side.told(params, rows)

    monkeypatch.setattr(encoder, "_image", side._replace(told=noted))
    assert len(encoder.images(lambda i: PICTURES[i % 10], range(count))) == count
    assert seen == sizes


def test_prompts_change_the_features(encoders, backbone, prompts):
    encoder = encoders(4)
    images, texts = (under(encoder, own[None]) for own in prompts)
    for plain, prompted in (
        (encoder.images(PICTURES.__getitem__, [0]), encoder.images(PICTURES.__getitem__, [0], images)),
        (encoder.texts(backbone[2][:1]), encoder.texts(backbone[2][:1], texts)),
    ):
        assert np.abs(plain - prompted).max() > 1e-2


def test_any_items_in_any_order_may_be_asked_for(encoders):
    encoder = encoders(4)
    whole = encoder.images(PICTURES.__getitem__, range(10))
    chosen = np.array([7, 0, 7, 3, 9])
    np.testing.assert_allclose(encoder.images(PICTURES.__getitem__, chosen), whole[chosen], **EXACT)


def test_padding_loads_no_picture_and_leaves_no_trace(encoders):
    encoder, loaded = encoders(4), []
    found = encoder.images(lambda i: (loaded.append(i), PICTURES[i])[1], [1, 2, 3, 4, 5])
    assert sorted(loaded) == [1, 2, 3, 4, 5]
    alone = encoder.images(PICTURES.__getitem__, [5])
    np.testing.assert_array_equal(found[4:], alone)


def test_nothing_in_nothing_out(encoders, backbone):
    encoder = encoders(4)
    for found in (
        encoder.images(PICTURES.__getitem__, []),
        encoder.texts(backbone[2][:0]),
        encoder.texts(np.zeros((0, 77), np.int32)),
    ):
        assert found.shape == (0, encoder.embed_dim)
        assert found.dtype == np.float32


def test_a_picture_that_cannot_be_loaded_is_not_swallowed(encoders):
    def load(index):
        raise OSError(f"picture {index} is gone")

    with pytest.raises(OSError, match="picture 0 is gone"):
        encoders(4).images(load, [0, 1])


def test_a_batch_of_nothing_is_refused(backbone):
    mesh = meshes.make_mesh(1)
    with pytest.raises(UserError, match=r"^config\.eval\.batch is 0, expected a multiple of the 1 devices"):
        Encoder(Towers(backbone[0], MEAN, STD), backbone[1], PLAIN, mesh, 0)


# ---------------------------------------------------------------------------------------- prompts that follow the item


def test_a_method_may_make_the_prompts_of_every_item_from_its_plain_features(tiny_clip, backbone, prompts):
    """Queries are captions without placeholders; each item gets what it would get alone, through other weights, too."""
    model, params, ids = backbone
    plain_ids, _ = Tokenizer.load(tiny_clip).encode(CAPTIONS, 0, model.config.context_length)
    sides = {"vision": "image", "text": "text"}

    def adapt(trainable, constants, frozen, queries):
        """Prompts as long as the first number of an item's query; a side that asks makes those of that side alone."""
        made = {
            site: queries[side][:, :1, None, None] * trainable[site][None] + constants[site]
            for site, side in sides.items()
            if side in queries
        }
        return Adapter(jax.tree.map(lambda leaf: leaf * 1.01, frozen), made), None

    method, mesh = PLAIN._replace(adapt=adapt, wants_queries=True), meshes.make_mesh(1)
    encoder = Encoder(Towers(model, MEAN, STD), meshes.put_replicated(params, mesh), method, mesh, 4)
    trainable = dict(zip(sides, prompts, strict=True))
    constants = {site: 0.1 * own for site, own in trainable.items()}
    group = Group(np.zeros(0, int), encoder.frozen, tuned=(trainable, constants))
    pixels = ((PICTURES / 255 - np.float64(MEAN)) / np.float64(STD)).astype(np.float32)
    moved = jax.tree.map(lambda leaf: leaf * 1.01, params)
    towers = [jax.jit(functools.partial(model.apply, method=name)) for name in ("encode_image", "encode_text")]
    for site, encode, found, asking, items in (
        ("vision", towers[0], encoder.images(PICTURES.__getitem__, range(10), group), pixels, pixels),
        ("text", towers[1], encoder.texts(ids, group, plain_ids), plain_ids, ids),
    ):
        queries = encode({"params": params}, asking, None)
        own = queries[:, :1, None, None] * trainable[site] + constants[site]
        expected = encode({"params": moved}, items, own)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert np.abs(found - encode({"params": params}, items, None)).max() > 1e-2
