"""Fetch the common tests of the installed transformers version; they are in its source distribution only.

They become the package `transformers_tests` in `.cache/transformers-<version>/`, which `conftest.py` makes importable.
Nothing happens if they are there already.
"""

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

VERSION = version("transformers")
CACHE = Path(__file__).parents[2] / ".cache" / f"transformers-{VERSION}"

# What the common tests import from folders that the source distribution leaves out. The mixins add tests of exporting
# and of text generation; `config_common_kwargs` is used for configurations without a nested one only.
STUBS = {
    "__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}


def fetch() -> None:
    package = CACHE / "transformers_tests"
    if package.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        folder = Path(folder)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
        subprocess.run([*download, "--dest", folder, f"transformers=={VERSION}"], check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tests = [member for member in tar.getmembers() if member.name.split("/")[1:2] == ["tests"]]
            tar.extractall(folder, members=tests, filter="data")
        (tests,) = folder.glob("*/tests")
        for name, text in STUBS.items():
            (tests / name).parent.mkdir(exist_ok=True)
            (tests / name).write_text(text)
        tests.rename(package)  # last, so that an interrupted run leaves no half package


if __name__ == "__main__":
    fetch()
    print(f"transformers {VERSION}: common tests in {CACHE}")
