"""Deep Compression's files: the same bits again, few bytes, and nothing believed that a file says of itself."""

import hashlib
import math
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_prune import slim
from lightning_prune.errors import InputError
from lightning_prune.export import tensor_codes
from lightning_prune.export.byte_stream import varint
from lightning_prune.export.huffman import MOST_BITS, code_lengths, decode, encode, is_code
from lightning_prune.export.packed import load_packed, pack, packed_sizes, read_packed, unpack, write_packed
from lightning_prune.export.packed_tensor import DTYPES, Sizes
from lightning_prune.export.relative_index import to_gaps, to_positions, zeros_between
from lightning_prune.models.lenet import lenet_300_100
from lightning_prune.pruning.shared_weights import cluster


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy())


def assert_survives(*tensors: Tensor) -> list[Sizes]:
    """Return the sizes of tensors, each of which comes out of a file as it went in."""
    state = {str(place): tensor for place, tensor in enumerate(tensors)}
    found = unpack(pack(state), "here")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert (found[name].dtype, found[name].shape, bits(found[name])) == (tensor.dtype, tensor.shape, bits(tensor))
    return [tensor_codes.pack_tensor(tensor).sizes for tensor in tensors]


# Huffman codes --------------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_worked_example() -> None:
    counts = np.array([50, 20, 15, 10, 5])
    lengths = code_lengths(counts)
    assert lengths.tolist() == [1, 2, 3, 4, 4]
    assert (counts * lengths).sum() / 100 == pytest.approx(1.95)


@pytest.mark.parametrize("seed", range(20))
def test_codes_are_as_short_as_codes_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = (rng.pareto(0.5, rng.integers(2, 300)) * 10).astype(np.int64).clip(max=10**9)
    counts[:2] += 1
    lengths = code_lengths(counts)
    used = counts > 0
    share = counts[used] / counts.sum()
    entropy = float(-(share * np.log2(share)).sum())
    assert ((lengths > 0) == used).all()
    assert sum(2.0**-length for length in lengths[used].tolist()) == 1
    assert max(lengths) <= MOST_BITS
    assert entropy <= (share * lengths[used]).sum() < entropy + 1


def test_codes_are_limited_to_15_bits_at_the_least_cost() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 20:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(np.array(fibonacci))
    assert max(lengths) == MOST_BITS
    assert is_code(lengths)
    # Without a limit the lengths would be 19, 19, 18, .., 1. The best codes of 15 bits have the cost of the
    # coin-collector's solution, found here by dynamic programming over how many leaves each level leaves open.
    assert int((np.array(fibonacci) * lengths).sum()) == cheapest(sorted(fibonacci, reverse=True))


def cheapest(counts: list[int]) -> int:
    """Return the least cost of codes of at most `MOST_BITS`: leaves are set level by level, the most frequent first."""
    best = {(0, 1): 0}  # (leaves that are set, open nodes): cost, each leaf paid on the levels above it
    for _ in range(MOST_BITS):
        following: dict[tuple[int, int], int] = {}
        for (done, free), cost in best.items():
            cost += sum(counts[done:])
            nodes = min(2 * free, len(counts))
            for leaves in range(min(nodes, len(counts) - done) + 1):
                key = (done + leaves, nodes - leaves)
                following[key] = min(following.get(key, cost), cost)
        best = following
    return min(cost for (done, _), cost in best.items() if done == len(counts))


@pytest.mark.parametrize(("count", "kinds"), [(1, 1), (7, 1), (8, 1), (9, 2), (100, 3), (70_000, 30), (300_000, 700)])
def test_a_text_is_read_as_it_was_written(count: int, kinds: int) -> None:
    rng = np.random.default_rng(count)
    text = np.minimum(rng.pareto(1, count) * 3, kinds - 1).astype(np.uint16)
    lengths = code_lengths(np.bincount(text))
    stream = np.frombuffer(encode(text, lengths), np.uint8)
    assert len(stream) == math.ceil(lengths[text].astype(int).sum() / 8)
    assert np.array_equal(decode(stream, lengths, count), text)
    for wrong in (count - 9, count + 9):
        with pytest.raises(ValueError, match="expected"):
            decode(stream, lengths, max(0, wrong))


def test_bits_are_written_in_order() -> None:
    lengths = np.array([1, 2, 3, 3], np.uint8)  # 0, 10, 110, 111
    assert encode(np.array([3, 0, 1, 2, 0], np.uint16), lengths) == bytes([0b11101011, 0b00000000])


# Relative indices -----------------------------------------------------------------------------------------------------


def test_gaps_are_those_of_the_worked_example() -> None:
    gaps, real = to_gaps(zeros_between(np.array([1, 4, 15]), 16), bits=3)
    assert gaps.tolist() == [1, 2, 7, 2]
    assert real.tolist() == [True, True, False, True]
    assert to_positions(gaps).tolist() == [1, 4, 12, 15]


@pytest.mark.parametrize("bit_count", [1, 3, 8])
def test_zeros_at_the_end_need_fillers_only_where_they_are_many(bit_count: int) -> None:
    few, many = 2**bit_count - 1, 2**bit_count
    assert len(to_gaps(zeros_between(np.array([0]), 1 + few), bit_count)[0]) == 1
    assert to_gaps(zeros_between(np.array([0]), 1 + many), bit_count)[1].tolist() == [True, False]
    assert len(to_gaps(zeros_between(np.zeros(0, int), few), bit_count)[0]) == 0


# Tensors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_sparse_tensors_survive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.normal(size=rng.integers(1, 260))).float()
    runs = (rng.pareto(0.4, rng.integers(1, 400)) * rng.integers(1, 50)).astype(int).clip(max=20_000)
    places = np.cumsum(runs + 1) - 1
    tensor = torch.zeros(int(places[-1]) + 1 + int(rng.integers(0, 3) * rng.integers(0, 30_000)))
    tensor[places] = values[rng.integers(0, len(values), len(places))]
    assert_survives(tensor, tensor[: int(places[-1])], tensor.flip(0))


def test_all_number_formats_survive() -> None:
    words = torch.randint(0, 256, (8, 3, 16), dtype=torch.uint8)
    formats = [dtype for dtype in DTYPES if dtype is not torch.bool]
    few = torch.tensor([0, 1, 0, 0, 200, 0, 7, 0] * 500, dtype=torch.uint8)
    assert_survives(
        *(words.view(dtype) for dtype in formats),
        *(few.view(dtype) for dtype in formats),
        *(few.to(dtype) for dtype in formats if not dtype.is_complex),
        few.bool(),
    )


def test_what_is_not_a_usual_number_survives() -> None:
    nan = torch.tensor([0x7FC00001, -0x3FFFFF, 0x7F800001, 0x7F800000], dtype=torch.int32).view(torch.float32)
    unusual = torch.cat((torch.tensor([-0.0, 0.0, 1e-45, -math.inf]), nan))
    assert_survives(unusual, unusual.repeat(1000), unusual.repeat_interleave(1000), unusual.view(2, 2, 2).half())
    sparse = torch.zeros(10_000)
    sparse[::100] = -0.0
    assert_survives(sparse)


def test_tensors_of_any_shape_survive() -> None:
    assert_survives(
        torch.tensor(3.0),
        torch.tensor(0, dtype=torch.int64),
        torch.zeros(0),
        torch.zeros(3, 0, 5, dtype=torch.bfloat16),
        torch.zeros(1, 1, 1, 1, 1, 1, 1, 2),
        torch.zeros(100, 1000),
        torch.ones(100, 1000),
        torch.arange(12.0).view(3, 4).t(),
        torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.complex(torch.randn(9), torch.randn(9)).conj(),
        nn.Parameter(torch.randn(3)),
    )


@pytest.mark.parametrize("size", [1, 1023, 1025, 5000, 40_000, 1_000_000])
def test_tensors_of_next_to_nothing_survive_in_few_bytes(size: int) -> None:
    tensors = [torch.zeros(size, dtype=dtype) for dtype in (torch.float32, torch.float64, torch.bool, torch.uint8)]
    one = torch.zeros(3, size)
    one[1, size // 2] = 1
    for found, tensor in zip(assert_survives(*tensors, one), [*tensors, one], strict=True):
        # One bit for each element, and in a large tensor no more than a file has to hold for what it unpacks to.
        assert sum(found) <= 8 + min(tensor.numel() / 8 + 8, tensor.nbytes / 900 + 600)


def test_a_tensor_takes_the_least_bytes() -> None:
    dense = torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat(4000)
    noise = torch.randn(2000)
    rare = torch.zeros(64_000)
    rare[torch.randperm(64_000)[:640]] = torch.randn(31)[torch.randint(31, (640,))]
    of_dense, of_noise, of_rare, of_few = assert_survives(dense, noise, rare, torch.randn(10))
    assert (of_dense.indices, of_dense.raw, of_dense.codes) == (0, 0, 16_000 * 2 // 8)
    assert (of_noise.raw, of_few.raw) == (8000, 40)
    assert (of_rare.raw, of_rare.codebook) == (0, 124)
    # Entropies: log2(31) bits for a value, and 1/p * H(p) for a geometric gap of p = 0.01; 10 % for whole bits.
    index_entropy = (-0.01 * math.log2(0.01) - 0.99 * math.log2(0.99)) / 0.01
    assert 640 * math.log2(31) / 8 * 0.9 < of_rare.codes < 640 * math.log2(31) / 8 * 1.1
    assert 640 * index_entropy / 8 * 0.9 < of_rare.indices < 640 * index_entropy / 8 * 1.1


def test_plain_data_survives_and_a_shared_tensor_is_packed_once() -> None:
    shared = torch.randn(5000)
    state = {"a": shared, "b": {"c": shared}, 3: (1, [2.5, None, "x"], {"": True, "tensor": -0.0}), "inf": math.inf}
    data = pack(state)
    found = unpack(data, "here")
    assert found["a"] is found["b"]["c"]
    assert {**found, "a": 0, "b": 0} == {**state, "a": 0, "b": 0}
    assert len(data) < 20_400
    with pytest.raises(InputError, match=r"^expected tensors and plain data to pack, got a Linear$"):
        pack({"a": nn.Linear(1, 1)})
    with pytest.raises(InputError, match="expected plain tensors to pack, got one of torch"):
        pack({"a": torch.eye(2).to_sparse()})


# Networks -------------------------------------------------------------------------------------------------------------


def shared_lenet() -> nn.Module:
    """LeNet-300-100 with the paper's densities, and 5-bit codes."""
    model = lenet_300_100()
    for layer, kept in ((model.fc1, 0.08), (model.fc2, 0.09), (model.fc3, 0.26)):
        weight = torch.randn_like(layer.weight)
        weight[weight.abs() < weight.abs().quantile(1 - kept)] = 0
        values, codes = cluster(weight, 5)
        layer.weight.data = torch.cat((values.new_zeros(1), values)).float()[codes.long()]
    return model


def test_lenet_takes_as_many_bytes_as_the_paper_says(tmp_path: Path) -> None:
    model = shared_lenet()
    write_packed(model, tmp_path / "net.lpz")
    found = packed_sizes(tmp_path / "net.lpz")
    assert found.total == (tmp_path / "net.lpz").stat().st_size
    # 29.3 KiB with 5-bit relative indices and 6-bit codes; Huffman saves 10 to 30 %.
    assert 0.7 * 29.3 < found.total / 1024 < 0.9 * 29.3
    assert found.parts.raw == 410 * 4
    assert found.tensors["state_dict/fc1.weight"].codebook <= 31 * 4
    loaded = load_packed(lenet_300_100(), tmp_path / "net.lpz")
    for name, tensor in model.state_dict().items():
        assert bits(loaded.state_dict()[name]) == bits(tensor)


def test_a_slim_network_comes_out_slim(tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))

    model = build().eval()
    for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
        tensor.data[::2] = 0
    images = torch.randn(2, 1, 8, 8)
    small = slim(model, images)
    write_packed(small, tmp_path / "slim.lpz")
    loaded = load_packed(build(), tmp_path / "slim.lpz").eval()
    assert loaded[0].weight.shape[0] == 4
    assert torch.equal(loaded(images), small(images))
    assert read_packed(tmp_path / "slim.lpz")["state_dict"]["1.num_batches_tracked"].dtype == torch.int64
    assert [file.name for file in tmp_path.iterdir()] == ["slim.lpz"]


# Files that are not what they were ------------------------------------------------------------------------------------


def small_state() -> dict[str, Tensor]:
    sparse = torch.zeros(60)
    sparse[::7] = 1.5
    return {"sparse": sparse, "dense": torch.tensor([1.0, 2.0] * 30), "raw": torch.tensor([1, 2])}


def test_every_altered_byte_and_every_truncation_is_refused(tmp_path: Path) -> None:
    data = pack(small_state())
    assert len(data) < 300
    for place in range(len(data)):
        for change in (1, 128):
            altered = bytearray(data)
            altered[place] ^= change
            with pytest.raises(InputError, match=r"expected a file.*here") as error:
                unpack(bytes(altered), "here")
            assert "\n" not in str(error.value)
        with pytest.raises(InputError, match=r"expected a file.*here"):
            unpack(data[:place], "here")
    with pytest.raises(InputError, match="checksum is wrong: it is truncated or altered"):
        unpack(data + b"\0", "here")
    (tmp_path / "cut.lpz").write_bytes(data[:-40])
    for read in (read_packed, packed_sizes):
        with pytest.raises(InputError, match=r"cut\.lpz, whose checksum is wrong"):
            read(tmp_path / "cut.lpz")
        with pytest.raises(InputError, match=r"none\.lpz, which does not exist"):
            read(tmp_path / "none.lpz")


def signed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_forged_files_end_in_one_line_or_in_plain_data() -> None:
    body = pack(small_state())[:-32]
    tracemalloc.start()
    for place in range(len(body)):
        for value in (0, 1, 127, 128, 255, body[place] ^ 1):
            forged = bytes([*body[:place], value, *body[place + 1 :]])
            for candidate in (signed(forged), signed(forged[: place + 1])):
                try:
                    found = unpack(candidate, "here")
                except InputError as error:
                    assert "\n" not in str(error)  # noqa: PT017
                else:
                    assert isinstance(found, dict)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


DESCRIPTION = b'{"w":["tensor",0]}'


def forged(tensor: bytes, description: bytes = DESCRIPTION, size: int | None = None, count: bytes = b"\1") -> bytes:
    deflated = zlib.compress(description)
    size = len(description) if size is None else size
    return signed(b"LPZ\1" + varint(size) + varint(len(deflated)) + deflated + count + tensor)


FLOAT, HUGE = b"\0", varint(2**40)
ONE_VALUE = b"\1" + b"\0\0\x80\x3f" + b"\2\x11"  # a codebook of one value; codes of one bit for it and for zero


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (forged(FLOAT + b"\0\1" + HUGE), "bytes where 0 are left"),
        (forged(FLOAT + b"\0\2" + HUGE + HUGE), "too large"),
        (forged(FLOAT + b"\0\3\0" + HUGE + HUGE), "too large"),
        (forged(FLOAT + b"\0" + HUGE), "too many dimensions"),
        (forged(FLOAT + b"\1\1" + HUGE + ONE_VALUE + b"\1\x55"), "larger than its codes tell"),
        (forged(FLOAT + b"\1\1\x20" + ONE_VALUE + HUGE), "bytes where 0 are left"),
        (forged(FLOAT + b"\1\1\x20" + HUGE), "a codebook that is too large"),
        (forged(FLOAT + b"\2\1\2" + ONE_VALUE + b"\1\x55" + HUGE + b"\2\x11\1\x55"), "larger than its entries tell"),
        (forged(FLOAT + b"\2\1" + HUGE + ONE_VALUE + b"\1\x55\1\2\x11\1\x55"), "larger than its entries tell"),
        (forged(FLOAT + b"\x0b\2\x80\x08\x80\x08" + b"\0\1\x10\0\0\0\0"), "larger than its entries tell"),
        (
            forged(FLOAT + b"\x0b\1" + varint(9000) + b"\0\1\x10\1\0\x08\1\x10\1\0"),
            "larger than its codes tell",
        ),
        (forged(FLOAT + b"\1\1\x08\1\0\0\0\0\2\x12\1\x55"), "lengths of codes that do not fit together"),
        (forged(FLOAT + b"\1\1\x08\1\0\0\0\0\3\x11\1\x55"), "too many codes"),
        (forged(FLOAT + b"\1\1\x08" + ONE_VALUE + b"\2\x55\x55"), "expected fewer bytes"),
        (forged(b"\x63\0\0"), "unknown form"),
        (forged(b"\x09\0\1\1\2"), "neither 0 nor 1"),
        (forged(FLOAT + b"\0\1\0", count=HUGE), "bytes where"),
        (forged(FLOAT + b"\0\1\0", size=2**40), "a description that is larger than its bytes tell"),
        (forged(FLOAT + b"\0\1\0", size=3), "a description of another size"),
        (forged(FLOAT + b"\0\1\0", b'{"w":["tensor",7]}'), "tensors in disorder"),
        (forged(FLOAT + b"\0\1\0", b'{"w":["other",1]}'), "more than its contents tell"),
        (forged(FLOAT + b"\0\1\0", b'["tensor",0]'), "no dictionary"),
        (forged(FLOAT + b"\0\1\0", b"[" * 100_000), "RecursionError"),
        (forged(FLOAT + b"\0\1\0\0"), "more than its contents tell"),
        (signed(b"LPZ\2"), "expected a file of version 1, got here of version 2"),
        (signed(b"PK"), "got here, which is none"),
    ],
    ids=range(26),
)
def test_no_size_is_believed(data: bytes, reason: str) -> None:
    tracemalloc.start()
    with pytest.raises(InputError, match=reason) as error:
        unpack(data, "here")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert peak < 1e7
