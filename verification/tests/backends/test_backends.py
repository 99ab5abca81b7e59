"""Every capability the table claims is exercised, every gap it claims is real, and every backend keeps one protocol."""

from __future__ import annotations

import dataclasses
import itertools
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from places import ROOT
from tables import product_rounding

import iresnet_backends
import iresnet_ref as ir
from iresnet_backends import capabilities, convert
from iresnet_backends.backend import allocate
from iresnet_backends.capabilities import FEATURES, TABLE
from iresnet_backends.errors import BackendUnavailableError
from iresnet_ref.arrays import device, namespace, to_host
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.rounding import ELEMENTARY, gamma, logdet_rounding, unit_roundoff

HERE = iresnet_backends.available()
NEEDS_HARDWARE = {"torch:cuda", "torch:mps", "jax:gpu", "cupy"}
ROWS = [
    (name, dtype)
    for name in TABLE
    if name not in NEEDS_HARDWARE or any(here.startswith(name) for here in HERE)  # else nothing can be shown on this machine
    for dtype in capabilities.row(name).dtypes
]


def label(name: str, dtype: str) -> str:
    """The id of a row's tests; `make test-gpu` finds those of a GPU by "cupy:" or "torch:cuda"."""
    return f"{name}:0-{dtype}" if name == "cupy" else f"{name}-{dtype}"


each_row = pytest.mark.parametrize(("name", "dtype"), [pytest.param(*r, id=label(*r)) for r in ROWS])


def block(b: Any, lipschitz: float | None = None, activation: str = "elu") -> tuple[ir.ResidualBlock, Any]:
    F = ir.ResidualBlock(ir.mlp((2, 4, 2), activation=activation, lipschitz=0.5, like=b.asarray(np.zeros(1))), lipschitz)
    return F, b.asarray([[0.5, -1.0], [2.0, 0.25], [0.0, 3.0]])


def forward(b: Any) -> None:
    F, x = block(b)
    y = F(x)
    assert (y.dtype, device(y), tuple(y.shape)) == (x.dtype, device(x), (3, 2))


def certificate(b: Any) -> None:
    found = ir.certify(block(b)[0])
    assert found.proved
    assert found.bound <= 0.5


def spectral_norm(b: Any) -> None:
    weight = b.asarray(np.diag([3.0, 4.0]))
    assert float(to_host(ir.spectral.spectral_norm(weight))) == 4.0  # a diagonal matrix is rotated by nothing: nothing is rounded


def sorting(b: Any) -> None:
    F = ir.ResidualBlock(ir.mlp((2, 4, 2), activation="maxmin", lipschitz=0.5, like=b.asarray(np.zeros(1))))
    y, chain = F.branch.linearize(block(b)[1])
    assert chain.rmatvec(y).shape == (3, 2)


def logdet(method: Any) -> Callable[[Any], None]:
    def exercise(b: Any) -> None:
        F, x = block(b)
        assert ir.logdet(F, x, method).value.dtype == x.dtype

    return exercise


def inverse(b: Any) -> None:
    F, x = block(b)
    found = ir.invert(F, F(x), rtol=1e-5)
    assert (np.linalg.norm(to_host(found.x) - to_host(x), axis=1) <= to_host(found.error_bound)).all()


def compiled(b: Any, to: str = "aot_eager") -> None:
    F, x = block(b, 0.5, "lipswish")
    v = ir.Probes(count=2).draw(x)  # on the host: outside of what torch compiles
    F = ir.ResidualBlock(F.branch.with_parameters(F.branch.parameters()))
    u, L = unit_roundoff(x), 0.5
    # (what is compiled, what either side may be off by): a value; a series of three terms, ‖v‖² = d = 2
    calls: list[tuple[Callable[[Any], Any], Any]] = [(F, value_rounding(F, x))]
    terms = product_rounding(F.branch, 3, 2, u) * 2 * (L + L**2 / 2 + L**3 / 3)
    calls += [(lambda x: series_logdet(F.branch.linearize(x)[1], v, 3), terms)]
    if capabilities.gap(b.name, "exact logdet", dtype_of(x)) is None:
        calls += [(lambda x: ir.logdet(F, x, method="exact").value, logdet_rounding(2, u, L))]
        # J has three factors, sums of 2 and of 4 terms and an elementary function. I + J, κ ≤ 3, is inverted with 5 roundings; the way
        # back meets the factors once more and adds 3 rows. With ‖W‖, φ′ ≤ 1, ‖(I + J)⁻¹‖ ≤ 2 and ȳ = x no row adds more than ‖x‖² + 2.
        kappa, factors = (1 + L) / (1 - L), 2 + 4 + ELEMENTARY
        size = float(np.sum(to_host(x).astype(np.float64) ** 2 + 1.0))
        allowed = gamma(kappa * (factors + 5) + factors + 3, u) * size
        calls += [(lambda x: ir.logdet_gradient(F, x, method="exact", y_bar=x).parameters["0.weight"], allowed)]
        if capabilities.gap(b.name, "sorting", dtype_of(x)) is None:
            sorted_ = ir.ResidualBlock(ir.mlp((2, 4, 2), activation="maxmin", lipschitz=0.5, like=x))
            calls += [(lambda x: ir.logdet_gradient(sorted_, x, method="exact").x_bar, 0.0)]  # J does not change: zero, not to rounding
    for f, allowed in calls:
        got = to_host(compile_for(b, to)(f)(x))  # F is new: what is cached of it was not there before
        assert (np.abs(got - to_host(f(x))) <= 2 * allowed).all()


def value_rounding(F: ir.ResidualBlock, x: Any) -> Any:
    """Return a bound on |fl F(x) − F(x)| per row: that of g, and of one addition."""
    error = to_host(F.branch.running_error(x)[1])[:, None]
    return error + unit_roundoff(x) * (np.abs(to_host(F(x))) + error)


def transform(b: Any, *names: str) -> Any:
    """The function transform of the package that owns the namespace, found there: AttributeError where it has none."""
    package = sys.modules[b.xp.__name__.removeprefix("array_api_compat.").partition(".")[0]]
    return next((getattr(package, n) for n in names[:-1] if hasattr(package, n)), None) or getattr(package, names[-1])


def compile_for(b: Any, to: str = "aot_eager") -> Callable[[Any], Any]:
    found = transform(b, "compile", "jit")
    return partial(found, fullgraph=True, backend=to) if found.__module__.startswith("torch") else found


@pytest.mark.filterwarnings("ignore")
def test_what_torch_compiled_for_one_block_is_not_taken_for_another() -> None:
    """The certificate is proved outside of the graph: its bound is guarded, and a block that does not contract is refused."""
    b = iresnet_backends.get("torch:cpu", "float64")
    F, x = block(b)
    f = compile_for(b, "eager")(lambda F, x: ir.logdet(F, x, method="exact").value)
    f(F, x)
    parameters = F.branch.parameters()
    half = ir.ResidualBlock(F.branch.with_parameters({k: v / 2 for k, v in parameters.items()}))
    assert np.array_equal(to_host(f(half, x)), to_host(ir.logdet(half, x, method="exact").value))  # "eager" runs the same kernels
    scaled = compile_for(b, "eager")(lambda F, x: ir.logdet(F, x, method="exact").value * F.contraction())  # which needs Lip(g) < 1
    assert np.array_equal(to_host(scaled(F, x)), to_host(f(F, x)) * F.contraction())
    with pytest.raises(Exception):  # noqa: B017, PT011 - torch's own, for the NotContractiveError it meets while tracing
        scaled(ir.ResidualBlock(F.branch.with_parameters({k: 9 * v for k, v in parameters.items()})), x)


@pytest.mark.filterwarnings("ignore")
def test_torch_compiles_every_activation_whole() -> None:
    """φ, φ′ and φ″ of all as one graph; "eager" runs the same kernels, so the numbers are the same."""
    b = iresnet_backends.get("torch:cpu", "float64")
    z = b.asarray(np.linspace(-50.0, 50.0, 101))

    def everything(z: Any) -> Any:
        return [part for phi in ir.activations.ACTIVATIONS.values() for part in (phi.value(z), *phi.both(z), phi.second(z))]

    for got, want in zip(compile_for(b, "eager")(everything)(z), everything(z), strict=True):
        assert np.array_equal(to_host(got), to_host(want))


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="torch.compile writes C++: no compiler here")
@pytest.mark.filterwarnings("ignore")  # what torch's own compiler warns about is torch's
def test_torch_compiles_to_machine_code() -> None:
    """What CI traces for speed ("aot_eager") goes through the code generator too."""
    compiled(iresnet_backends.get("torch:cpu", "float64"), "inductor")


def vmapped(b: Any) -> None:
    vmap = transform(b, "vmap")
    F, x = block(b, 0.5)
    p = F.branch.parameters()
    stacked = {k: b.xp.stack([v, v / 2]) for k, v in p.items()}
    y = vmap(lambda q: ir.ResidualBlock(F.branch.with_parameters(q), 0.5)(x))(stacked)
    for i, scale in enumerate((1, 2)):
        alone = ir.ResidualBlock(F.branch.with_parameters({k: v / scale for k, v in p.items()}), 0.5)
        assert (np.abs(to_host(y[i]) - to_host(alone(x))) <= 2 * value_rounding(alone, x)).all()


def share(b: Any) -> None:
    x = b.asarray([1.0, 2.0])
    assert to_host(convert(x, b)).tolist() == [1.0, 2.0]


def generator(b: Any) -> None:
    assert b.generator(3) is not None


def memory(b: Any) -> None:
    used = b.memory()
    if used is None:
        raise BackendUnavailableError("not told")
    kept = b.asarray(np.zeros(1000))
    assert b.memory() >= used + kept.nbytes


EXERCISES: dict[str, Callable[[Any], None]] = {
    "forward": forward, "certificate": certificate, "spectral norm": spectral_norm,
    "series logdet": logdet(ir.Series(3)), "roulette logdet": logdet("roulette"), "exact logdet": logdet("exact"),
    "inverse": inverse, "sorting": sorting, "compile": compiled, "vmap": vmapped, "share": share, "generator": generator, "memory": memory,
}


def dtype_of(x: Any) -> str:
    return str(getattr(x.dtype, "name", getattr(x.dtype, "__name__", x.dtype))).rsplit(".", maxsplit=1)[-1]


def get(name: str, dtype: str) -> Any:
    return iresnet_backends.get(name, dtype)


def test_the_table_names_what_is_exercised() -> None:
    assert set(EXERCISES) == set(FEATURES)
    assert {name for name, row in TABLE.items() if row.ran.startswith("never")} <= NEEDS_HARDWARE
    for row in TABLE.values():
        for key in row.gaps:
            feature, _, dtype = key.partition("/")
            assert feature in FEATURES, key
            assert not dtype or dtype in capabilities.DTYPES, key


SLOW = {"compile", "vmap", "inverse", "roulette logdet"}
"""What torch and JAX compile for each dtype: in CI at float32 only."""


def cases() -> Iterator[Any]:
    for (name, dtype), feature in itertools.product(ROWS, FEATURES):
        slow = feature in SLOW and name in ("torch", "jax") and dtype != "float32"
        claimed = capabilities.gap(name, feature, dtype) is None
        marks = [pytest.mark.thorough] if slow and claimed else []
        yield pytest.param(name, dtype, feature, marks=marks, id=f"{label(name, dtype)}-{feature}")


@pytest.mark.parametrize(("name", "dtype", "feature"), list(cases()))
def test_claims_are_exercised_and_gaps_are_real(name: str, dtype: str, feature: str) -> None:
    b = get(name, dtype)
    with b.active(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
        if capabilities.gap(name, feature, dtype) is None:
            EXERCISES[feature](b)
        else:
            with pytest.raises((ir.IResNetError, AttributeError, RuntimeError, TypeError, ValueError, NotImplementedError)):
                EXERCISES[feature](b)


@each_row
def test_a_dtype_outside_the_table_is_refused_and_one_inside_is_kept(name: str, dtype: str) -> None:
    b = get(name, dtype)
    assert dtype_of(b.asarray(np.ones(2))) == dtype
    for other in set(capabilities.DTYPES) - set(capabilities.row(name).dtypes):
        with pytest.raises(BackendUnavailableError, match=rf"expected a dtype of .*got '{other}'; try dtype="):
            get(name, other)


@each_row
def test_the_host_and_back_keeps_every_value_and_shares_nothing(name: str, dtype: str) -> None:
    b = get(name, dtype)
    host = np.array([[1.0, -0.5], [0.0, 240.0]])
    x = b.asarray(host)
    host[0, 0] = 7.0
    back = b.to_numpy(x)
    assert back.tolist() == [[1.0, -0.5], [0.0, 240.0]]
    assert back.dtype == np.float32 if dtype == "bfloat16" else str(back.dtype) == dtype
    back[0, 0] = 9.0
    assert b.to_numpy(x)[0, 0] == 1.0, "to_numpy gave away the array's own memory"
    b.synchronise()


def test_every_name_that_is_available_can_be_got() -> None:
    devices = {f"{f}:{d}" for f in ("numpy", "torch", "jax", "array-api-strict", "precision") for d in iresnet_backends.devices(f)}
    assert devices <= set(HERE)
    assert {"array-api-strict:no_float64", "array-api-strict:no_x64", "jax:cpu"} <= set(HERE)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("torch:cpu:99", r'no such device; here it has cpu.*try another device, or pip install "iresnet-ref\[torch\]"'),
        ("jax:cpu:99", r'no such device; here it has cpu.*pip install "iresnet-ref\[jax\]"'),
        ("precision:many", r"device 'many': expected a number of digits from 16"), ("precision:-3", "digits from 16"),
        ("precision:15", "digits from 16, what float64 numbers need"), ("numpy:gpu", "no such device; here it has cpu"),
        ("array-api-strict:device9", r'device1, device2, no_float64, no_x64; .*pip install "iresnet-ref\[strict\]"'),
    ],
)
def test_a_device_that_is_not_here_says_so(name: str, cause: str) -> None:
    with pytest.raises(BackendUnavailableError, match=cause):
        iresnet_backends.get(name)


def test_a_driver_that_is_missing_is_named_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    monkeypatch.setattr(cupy, "is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match=r'no CUDA driver or no GPU; try .*"iresnet-ref\[cupy12x\]" \(CUDA 12\)'):
        iresnet_backends.get("cupy")
    assert not [name for name in iresnet_backends.available() if name.startswith("cupy")]


def test_a_number_without_a_gpu_says_so() -> None:
    with pytest.raises(BackendUnavailableError, match=r'no such device; here it has 0, 1; .*pip install "iresnet-ref\[cupy12x\]"'):
        iresnet_backends.get("cupy:9")


NO_DRIVER = {
    ("torch:cuda:0", "12.6"): r'torch finds no driver for CUDA 12\.6, or no GPU; here it has cpu; .*"iresnet-ref\[torch\]"',
    ("torch:cuda", None): r"torch .* was built without CUDA; here it has cpu",
    ("torch:mps", None): "torch finds no Metal: no Apple GPU",
    ("jax:gpu", None): r'JAX finds no GPU: no CUDA plugin .*, or no driver; here it has cpu; .*pip install "jax\[cuda12\]"',
    ("jax:gpu:1", None): "JAX finds no GPU",
}


@pytest.mark.parametrize(("name", "cuda"), NO_DRIVER)
def test_a_gpu_that_cannot_be_used_says_why(name: str, cuda: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if any(here.startswith(":".join(name.split(":")[:2])) for here in HERE):
        pytest.skip("it can be used here")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(BackendUnavailableError, match=NO_DRIVER[name, cuda]):
        iresnet_backends.get(name, "float32")


MISSING = {
    "torch": ("torch", "torch"), "jax": ("jax", "jax"), "cupy": ("cupy", "cupy12x"), "precision": ("mparray", "precision"),
    "array-api-strict": ("array_api_strict", "strict"),
}


BARE = """
import sys
class Nothing:
    def find_spec(name, path, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing)
import iresnet_backends as b
from iresnet_backends.errors import BackendUnavailableError
print(b.available())
for family in {families}:
    try:
        b.get(family)
    except BackendUnavailableError as error:
        print(error)
"""


def test_a_package_that_is_missing_is_named_with_the_install_line() -> None:
    """In a process that finds NumPy and nothing else."""
    packages = {package for package, _ in MISSING.values()}
    code = BARE.replace("{packages}", repr(packages)).replace("{families}", repr(list(MISSING)))
    command = [sys.executable, "-W", "error", "-c", code]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0] == "['numpy:cpu']"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for (family, (package, extra)), line in zip(MISSING.items(), said[1:], strict=True):
        assert line.startswith(f'backend {family!r}: the package {package} cannot be imported; try pip install "iresnet-ref[{extra}]"')
        assert extra in extras


def test_each_gpu_is_waited_for_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda.synchronize() waits for the current device only, which may be another one."""
    import torch

    from iresnet_backends import torch as family

    places: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", places.append)
    monkeypatch.setattr(torch, "empty", lambda n, device: SimpleNamespace(device=torch.device(device, 0)))
    b = family.make("torch:cuda", "cuda", "float32")
    b.synchronise()
    assert places == [b.device] == [torch.device("cuda:0")], "a backend's device is the one that its arrays name"


def test_a_backend_whose_arrays_are_elsewhere_is_refused() -> None:
    b = get("array-api-strict:device1", "float32")
    for wrong in ({"device": get("array-api-strict:device2", "float32").device}, {"dtype": b.xp.float64}):
        with pytest.raises(RuntimeError, match=r"expected to read back \[1\.0\]"):
            allocate(dataclasses.replace(b, **wrong))


# -- conversion
SHARING = ["numpy", "torch:cpu", "jax:cpu", "array-api-strict:cpu"]


@pytest.mark.parametrize("there", SHARING)
@pytest.mark.parametrize("here", SHARING)
def test_a_copy_is_made_only_on_request(here: str, there: str) -> None:
    a, b = get(here, "float32"), get(there, "float32")
    x = a.asarray(np.arange(3.0))
    copied = convert(x, b, copy=True)
    assert (b.to_numpy(copied).tolist(), copied.dtype, device(copied)) == ([0.0, 1.0, 2.0], b.dtype, b.device)
    if there == "jax:cpu":  # it wants its memory aligned to 64 bytes, which depends on the allocator
        return
    shared = convert(x, b)
    assert b.to_numpy(shared).tolist() == [0.0, 1.0, 2.0]
    if here != "jax:cpu":  # whose arrays cannot be written to
        x[0] = 7.0
        assert b.to_numpy(shared)[0] == 7.0
        assert b.to_numpy(copied)[0] == 0.0


def test_nothing_is_rounded_or_moved_silently() -> None:
    x = np.ones(3)
    with pytest.raises(ir.DTypeError, match=r"expected dtype float32 for 'torch:cpu', got float64; cast with xp\.astype"):
        convert(x, get("torch:cpu", "float32"))
    with pytest.raises(BackendUnavailableError, match="whose memory 'precision:50' can share, got ndarray"):
        convert(x, get("precision:50", "float64"))
    with pytest.raises(BackendUnavailableError, match=r"whose memory 'jax:cpu' can share, got ndarray \(the framework had to"):
        convert(np.ones(4)[1:], get("jax:cpu", "float64"))  # not aligned to 64 bytes
    tracked = get("torch:cpu", "float64").asarray([1.0]).requires_grad_()
    with pytest.raises(BackendUnavailableError, match="require gradient"):
        convert(tracked, get("numpy", "float64"))
    short = get("torch:cpu", "bfloat16").asarray([0.1])
    assert float(convert(short, get("jax:cpu", "bfloat16"), copy=True)[0]) == float(short[0])


def test_float32_leaves_jax_at_32_bits() -> None:
    code = (
        "import iresnet_backends as b, jax\n"
        "b.get('jax', 'float32'); b.available(); assert not jax.config.jax_enable_x64\n"
        "x = b.get('jax', 'float64').asarray([1.0]); assert str(x.dtype) == 'float64' and jax.config.jax_enable_x64\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# -- what is generated from the table, and the example


def test_the_docs_table_is_current() -> None:
    text = (ROOT / "docs/backends.md").read_text("utf-8")
    generated = text.partition("<!-- generated: capabilities -->\n")[2].partition("<!-- end -->")[0]
    assert generated == capabilities.markdown(), "paste capabilities.markdown() between the marks"


def test_the_docs_example_runs() -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/backends.md").read_text("utf-8"), re.DOTALL)
    assert code is not None
    found: dict[str, Any] = {}
    exec(code[1], found)
    assert found["y"].shape == (1, 2)


def test_every_backend_is_a_short_file() -> None:
    files = [ROOT / f"backends/iresnet_backends/{r.module}.py" for r in TABLE.values()]
    lines = {p.name: p.read_text("utf-8").count("\n") for p in [*files, ROOT / "examples/dask_backend.py"]}
    assert max(lines.values()) <= 80, lines


def test_the_example_of_a_new_backend_runs_the_forward_pass(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/dask_backend.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "forward pass on dask: 0.0e+00 from NumPy's" in said
    assert "missing from array_api_compat.dask.array: linalg.slogdet" in said


def test_importing_the_reference_calls_fewer_functions_than_importing_numpy_and_no_framework() -> None:
    """Calls are counted, not seconds: their number is the same on every machine, however busy."""
    code = (
        "import sys\ncalls = [0]\n"
        "def count(frame, event, argument):\n    calls[0] += event in ('call', 'c_call')\n"
        "sys.setprofile(count)\nimport numpy\nof_numpy = calls[0]\nimport iresnet_ref\nsys.setprofile(None)\n"
        "found = {'torch', 'jax', 'cupy', 'mparray', 'dask', 'array_api_strict', 'scipy'} & set(sys.modules)\n"
        "assert not found, found\nprint(of_numpy, calls[0] - of_numpy)"
    )
    of_numpy, ours = map(int, subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert 10_000 < ours < of_numpy


# The namespace is remembered for each type and dtype: JAX's zero gradients are NumPy arrays too, of a dtype of their own.
def test_the_namespace_of_zero_gradients_is_not_that_of_numpy() -> None:
    jax = pytest.importorskip("jax")
    plain = namespace(np.zeros(3))
    zero = namespace(np.zeros(3, dtype=jax.dtypes.float0))
    assert namespace(np.ones(2)) is plain
    assert zero.__name__ == "jax.numpy" != plain.__name__
    with pytest.raises(TypeError):
        namespace("no array")  # type: ignore[arg-type]


class OnlyDlpack:
    """An array of the standard that NumPy knows by DLPack alone, entry by entry indexable."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.dtype, self.shape, self.ndim = values.dtype, values.shape, values.ndim

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


class Indexable(OnlyDlpack):
    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: Any) -> Indexable:
        return Indexable(self.values[key])

    def __float__(self) -> float:
        return float(self.values)


@pytest.mark.parametrize("kind", [OnlyDlpack, Indexable])
def test_an_array_that_numpy_knows_by_dlpack_alone_keeps_its_dtype_on_the_host(kind: type[OnlyDlpack]) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = to_host(kind(values))  # type: ignore[arg-type]  # no operators are needed
    assert found.dtype == np.float32
    assert (found == values).all()


def test_fake_tensors_have_no_values_and_no_certificate() -> None:
    """Torch's DLPack hands out memory that they do not have; inside their mode the detached copy of a real weight is one of them."""
    torch = pytest.importorskip("torch")
    mode = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode(allow_non_fake_inputs=True)
    g = ir.mlp((2, 8, 2), lipschitz=0.8, seed=1, like=torch.zeros(1, dtype=torch.float64))
    g = g.with_parameters({key: 50.0 * p for key, p in g.parameters().items()})
    with mode:
        for thing in (torch.ones(3), g.like):
            with pytest.raises(ir.DTypeError, match="can be copied to the host, got"):
                to_host(thing)
        with pytest.raises(ir.DTypeError, match="can be copied to the host, got"):
            assert g.certificate
    assert g.certificate.bound > 1.0
