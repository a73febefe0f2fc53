"""Building and loading with scripts in place of the compiler, so that no test depends on having one."""

import functools
import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

from vita_hf.ops import available_backends, build, loader, multi_scale_deformable_attention, rle
from vita_hf.ops.__main__ import main

# Any library that can be loaded, in place of one that was compiled.
LIBRARY = next((Path(torch.__file__).parent / "lib").glob("libtorch_global_deps.*"))
MAKE_LIBRARY = f'cp {LIBRARY} "$last"'

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in compilers are shell scripts")


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Make CXX a script that counts its calls in `calls`; returns a function that sets what it does to compile."""
    script = tmp_path / "c++"
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_TRY_OUT", build._TRY_OUT.replace(", torch", ""))  # which takes seconds to import
    # A fresh cache, so that the process neither forgets the real libraries nor loads them twice.
    monkeypatch.setattr(loader, "_library_error", functools.cache(loader._library_error.__wrapped__))
    loader._warn_once.cache_clear()

    def compiles(body: str):
        script.write_text(
            f"#!/bin/sh\ncase \"$*\" in *-dM*) echo '#define STAND_IN 1'; exit 0;; esac\n"
            f"echo call >> {tmp_path}/calls\nfor last; do :; done\n{body}\n"
        )
        script.chmod(0o755)

    return compiles


def calls(tmp_path):
    return (tmp_path / "calls").read_text().count("call")


def test_two_processes_compile_once(compiler, tmp_path):
    compiler(f"sleep 2; {MAKE_LIBRARY}")
    code = "from vita_hf.ops.build import build; print(build('cpp'))"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    (path,) = {out for out, _ in outputs}
    assert Path(path.strip()).read_bytes() == LIBRARY.read_bytes()
    assert calls(tmp_path) == 1
    assert sum("compiling the cpp kernels" in err for _, err in outputs) == 1
    assert [p for p in (tmp_path / "cache").iterdir() if p.suffix == ".tmp"] == []


def test_a_build_says_so_and_is_kept(compiler, tmp_path, capfd):
    compiler(MAKE_LIBRARY)
    first = build.build("cpp")
    message = capfd.readouterr().err
    assert re.fullmatch(r"vita-hf: compiling the cpp kernels, once .* … \d+ s\n", message)
    assert build.build("cpp") == first
    assert capfd.readouterr().err == ""
    assert calls(tmp_path) == 1


def test_the_key_follows_compiler_and_torch(compiler, monkeypatch):
    compiler(MAKE_LIBRARY)
    first = build.build("cpp")
    monkeypatch.setattr(torch, "__version__", "99.0")
    second = build.build("cpp")
    monkeypatch.setenv("CXX", os.environ["CXX"] + " -g")
    assert len({first, second, build.build("cpp")}) == 3


def test_a_failing_compiler_warns_once_names_the_log_and_falls_back(compiler, tmp_path, capfd):
    compiler("echo 'error: no such luck'; exit 3")
    value, locations, weights = torch.rand(1, 6, 1, 8), torch.rand(1, 2, 1, 1, 1, 2), torch.rand(1, 2, 1, 1, 1)
    with pytest.warns(UserWarning, match="failed with exit status 3, see") as caught:
        out = multi_scale_deformable_attention(value, [(2, 3)], locations, weights)
    assert len(caught) == 1
    log = re.search(r"see (\S+\.log)", str(caught[0].message)).group(1)
    assert "no such luck" in open(log).read()
    expected = multi_scale_deformable_attention(value, [(2, 3)], locations, weights, backend="pytorch")
    assert torch.equal(out, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        multi_scale_deformable_attention(value, [(2, 3)], locations, weights)
    with pytest.raises(RuntimeError, match=r"backend 'cpp' is not available: .*exit status 3"):
        multi_scale_deformable_attention(value, [(2, 3)], locations, weights, backend="cpp")

    loader._library_error.cache_clear()  # another process does not try again, unless told to
    with pytest.warns(UserWarning, match="compiling failed before"):
        assert available_backends() == ["pytorch"]
    assert calls(tmp_path) == 1
    with pytest.raises(build.BuildError, match="exit status 3"):
        build.build("cpp", retry=True)
    assert calls(tmp_path) == 2


def test_rle_falls_back_without_a_warning_and_leaves_that_to_attention(compiler):
    compiler("exit 1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rle.decode(["451"], 10)[2].tolist() == [5]
    with pytest.warns(UserWarning, match="failed with exit status 1"):
        assert available_backends() == ["pytorch"]


def test_no_compiler(compiler, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler: found none of /nowhere/c\\+\\+"):
        assert available_backends() == ["pytorch"]


def test_a_library_that_does_not_load(compiler, tmp_path):
    compiler('echo library > "$last"')
    message = r"slower implementations take over: the library that .*c\+\+ made cannot be loaded, see \S+\.log"
    with pytest.warns(UserWarning, match=message):
        assert available_backends() == ["pytorch"]
    (log,) = (tmp_path / "cache").glob("*.log")
    assert "invalid ELF header" in log.read_text() or "OSError" in log.read_text()
    assert not list((tmp_path / "cache").glob("*.so")) + list((tmp_path / "cache").glob("*.tmp"))


@pytest.mark.parametrize("damage", ["cut", "changed", "no checksum"])
def test_a_damaged_library_is_built_again(compiler, tmp_path, damage):
    compiler(MAKE_LIBRARY)
    library = build.build("cpp")
    content = library.read_bytes()
    if damage == "cut":
        library.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        library.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        library.with_suffix(".sha256").unlink()
    assert build.build("cpp") == library
    assert library.read_bytes() == content and calls(tmp_path) == 2
    assert build.build("cpp") == library and calls(tmp_path) == 2


def test_what_others_can_write_is_not_loaded(compiler, tmp_path):
    previous = os.umask(0o002)  # as where every user has a group
    try:
        compiler(MAKE_LIBRARY)
        library = build.build("cpp")
    finally:
        os.umask(previous)
    assert library.stat().st_mode & 0o777 == library.parent.stat().st_mode & 0o777 == 0o755
    for path, mode in ((library, 0o775), (library, 0o757), (library.parent, 0o777), (library.parent, 0o1777)):
        path.chmod(mode)
        with pytest.raises(build.BuildError, match=rf"other users can write to {path}: `chmod go-w {path}`"):
            build.build("cpp")
        path.chmod(0o755)
    assert build.build("cpp") == library
    library.parent.chmod(0o777)
    library.unlink()
    with pytest.raises(build.BuildError, match="other users can write to"):
        build.build("cpp")  # not even written there
    assert calls(tmp_path) == 1


@pytest.mark.parametrize("owner", ["library", "folder", "link"])
def test_what_others_own_is_not_loaded(compiler, tmp_path, monkeypatch, owner):
    compiler(MAKE_LIBRARY)
    library = build.build("cpp")
    link = tmp_path / "link"
    link.symlink_to(library.parent)
    foreign = {"library": library, "folder": library.parent, "link": link}[owner]
    if owner == "link":
        monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(link))
        assert build.build("cpp") == link / library.name
    lstat, inode = Path.lstat, foreign.lstat().st_ino

    def of_another_user(path, **options):
        state = lstat(path)
        return os.stat_result([*state[:4], 4711, *state[5:]]) if state.st_ino == inode else state

    monkeypatch.setattr(Path, "lstat", of_another_user)
    with pytest.raises(build.BuildError, match=r"belongs to another user: expected your own or root's"):
        build.build("cpp")
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert available_backends() == ["pytorch"]


@pytest.mark.parametrize("choice", ["off", "pytorch"])
def test_the_environment_can_forbid_kernels(compiler, monkeypatch, tmp_path, choice):
    monkeypatch.setenv("VITA_HF_KERNELS", choice)
    assert available_backends() == ["pytorch"]
    assert not (tmp_path / "calls").exists()


def test_the_environment_is_checked(monkeypatch):
    monkeypatch.setenv("VITA_HF_KERNELS", "fast")
    with pytest.raises(ValueError, match="VITA_HF_KERNELS: expected one of auto, off, cuda, cpp, pytorch, got 'fast'"):
        available_backends()


def test_importing_compiles_and_loads_nothing(compiler, tmp_path):
    compiler("exit 1")
    code = """
        import vita_hf, torch
        assert not hasattr(torch.ops.vita_hf_cpp, "deformable_attention")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert not (tmp_path / "calls").exists()


def test_command_line(compiler, monkeypatch, capsys):
    compiler(MAKE_LIBRARY)
    monkeypatch.setattr(sys, "argv", ["vita_hf.ops", "build"])
    assert main() == 0
    assert capsys.readouterr().out.strip() == str(build.build("cpp"))
    compiler("exit 1")
    monkeypatch.setenv("CXX", os.environ["CXX"] + " -g")
    assert main() == 1
    assert "failed with exit status 1" in capsys.readouterr().err


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """Make CUDA_HOME a folder with an nvcc that only tells its version."""

    def release(version):
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.parent.mkdir(exist_ok=True)
        nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {version}, V{version}.1"\n')
        nvcc.chmod(0o755)

    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    return release


def test_cuda_versions_must_match(toolkit):
    toolkit("12.8")
    with pytest.raises(build.BuildError, match=r"does not match torch's CUDA 13.2: .*release 12\.8"):
        build.build("cuda", ["9.0"])


@pytest.mark.parametrize(
    ("arches", "message"),
    [
        (["7.5"], "expected compute capabilities of at least 8.0, got 7.5"),
        (["hopper"], "expected compute capabilities like 9.0, got hopper"),
        ([], "this machine has no CUDA device, and no --arch was given"),
    ],
)
def test_cuda_arches_are_checked(toolkit, monkeypatch, arches, message):
    toolkit("13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(build.BuildError, match=message):
        build.build("cuda", arches)


def test_torch_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(build.BuildError, match="built without CUDA"):
        build.build("cuda", ["9.0"])
