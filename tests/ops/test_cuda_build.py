"""The CUDA sources compile without a warning, and to the machine code we expect. Needs nvcc, no GPU."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

from vita_hf.ops.build import BuildError, build, cache_dir


def compile_for(arch, monkeypatch):
    monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(cache_dir() / "warnings-are-errors"))
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-Werror=all-warnings -Xcompiler=-Wall")
    try:
        return build("cuda", [arch], retry=True)
    except BuildError as error:
        if "failed with exit status" in str(error):
            log = Path(re.search(r"see (\S+\.log)", str(error)).group(1))
            pytest.fail(log.read_text()[-4000:])
        pytest.skip(str(error))


@pytest.mark.parametrize("arch", ["8.0", "10.0"])
def test_compiles_without_warnings(arch, monkeypatch):
    compile_for(arch, monkeypatch)


def test_hopper_adds_and_loads_128_bits_at_once(monkeypatch):
    library = compile_for("9.0", monkeypatch)
    triton = importlib.util.find_spec("triton")
    tool = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump" if triton else Path("none")
    if not os.access(tool, os.X_OK):
        pytest.skip("cuobjdump comes with triton, which is not installed")
    code = subprocess.run([tool, "-sass", library], capture_output=True, text=True, check=True).stdout
    kernels = dict(zip(*[iter(re.split(r"Function : (\S+)", code)[1:])] * 2))
    single = {name: body for name, body in kernels.items() if not re.search("(Locations|Projections)Id", name)}
    backward = {name: body for name, body in single.items() if "backward_kernel" in name}
    forward = {name: body for name, body in single.items() if "forward_kernel" in name}
    assert len(forward) == len(backward) == 12  # float, half, bfloat16 × two entry points × 32 channels and any
    for name, body in backward.items():
        assert re.search(r"RED\S*\.F32x4", body), name
        assert not re.search(r"RED\S*\.F32\S*FTZ\.RN |ATOM", body), name
    for name, body in {**forward, **backward}.items():
        assert re.search(r"LDG\.E\.128", body), name
        assert not re.search(r"\b(LDL|STL)\b", body), f"{name} keeps values in local memory"
