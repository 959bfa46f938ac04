#!/bin/sh
# Generates and builds with Debian's packages alone. In a module of your own: `go get google.golang.org/grpc`,
# `go generate`, `go build`.
set -eu
cd "$(dirname "$0")"
rm -rf gen build
mkdir -p build/gopath/src
ln -s "$PWD" build/gopath/src/qwen3client
export GO111MODULE=off GOPATH="$PWD/build/gopath:/usr/share/gocode"
go generate
go build -o build/client .
