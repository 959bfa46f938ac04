"""The clients of examples/clients: what each needs on a machine, how it is built, how it is run."""

import subprocess
from dataclasses import dataclass

_GOCODE = "/usr/share/gocode/src"
_JARS = "/usr/share/java"


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """`name` is that of the example's folder, where `needs`, `build` and `run`, lines of bash, are executed.

    All `needs` succeed where the toolchain is there; else `debian_packages` bring it, with what `also_install` says.
    """

    name: str
    needs: tuple[str, ...]
    debian_packages: tuple[str, ...] = ()
    also_install: str = ""
    build: tuple[str, ...]
    run: str

    def missing(self) -> str | None:
        """The first need that this machine does not meet."""
        return next((need for need in self.needs if not _succeeds(need)), None)

    @property
    def install(self) -> str:
        """What to do about a missing need."""
        return self.also_install or f"apt-get install {' '.join(self.debian_packages)}"


def _succeeds(line: str) -> bool:
    return subprocess.run(["bash", "-c", line], capture_output=True, check=False).returncode == 0


def _programs(*names: str) -> tuple[str, ...]:
    return tuple(f"command -v {name}" for name in names)


def _jars(*names: str) -> tuple[str, ...]:
    return tuple(f"test -f {_JARS}/{name}.jar" for name in names)


_NODE_NEEDS = (*_programs("node", "npm"), "node -e 'process.exit(Number(parseInt(process.versions.node) < 20))'")
_NODE_INSTALL = "install Node 20 or later with npm (Debian 12 has 18)"

LANGUAGES = (
    Language(
        name="node-grpc-js",
        needs=_NODE_NEEDS,
        also_install=_NODE_INSTALL,
        build=("npm ci --no-audit --no-fund",),
        run="node client.js",
    ),
    Language(
        name="node-connect",
        needs=_NODE_NEEDS,
        also_install=_NODE_INSTALL,
        build=("npm ci --no-audit --no-fund", "npm run generate"),
        run="node client.js",
    ),
    Language(
        name="cpp",
        needs=(*_programs("g++", "cmake", "protoc", "grpc_cpp_plugin"), "pkg-config --exists grpc++"),
        debian_packages=(
            "g++",
            "cmake",
            "pkg-config",
            "libgrpc++-dev",
            "libprotobuf-dev",
            "protobuf-compiler",
            "protobuf-compiler-grpc",
        ),
        build=('cmake -S . -B build -DGOOGLEAPIS_DIR="$GOOGLEAPIS"', "cmake --build build --parallel 2"),
        run="build/client",
    ),
    Language(
        name="go",
        needs=(
            *_programs("go", "protoc-gen-go", "protoc-gen-go-grpc"),
            f"test -d {_GOCODE}/google.golang.org/grpc",
            f"test -d {_GOCODE}/google.golang.org/genproto",
            f"test -f {_GOCODE}/github.com/golang/protobuf/proto/registry.go  # in 1.5, not in 1.3",
        ),
        debian_packages=(
            "golang-go",
            "golang-google-grpc-dev",
            "golang-google-genproto-dev",
            "golang-google-protobuf-dev",
            "golang-github-golang-protobuf-1-5-dev",
            "protoc-gen-go",
            "protoc-gen-go-grpc",
        ),
        build=("./build.sh",),
        run="GRPC_GO_RETRY=on build/client",
    ),
    Language(
        name="java",
        needs=(
            *_programs("java", "javac", "protoc", "grpc_java_plugin"),
            *_jars("grpc-netty", "protobuf", "proto-google-common-protos", "netty-codec-http2"),
            *_jars("guava", "gson", "perfmark-api", "geronimo-annotation-1.3-spec"),
        ),
        debian_packages=(
            "openjdk-17-jdk-headless",
            "protobuf-compiler",
            "protobuf-compiler-grpc-java-plugin",
            "libgrpc-java",
            "libprotobuf-java",
            "libgoogle-common-protos-java",
            "libnetty-java",
            "libguava-java",
            "libgoogle-gson-java",
            "libperfmark-java",
            "libgeronimo-annotation-1.3-spec-java",
        ),
        build=("./build.sh",),
        run="build/client",
    ),
)
